# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch bundle` with the real mkfs.erofs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.bundle.image_kit import Bundler
from tests.launcher.conftest import Answer


@pytest.fixture
def bundler(call: Callable[..., Answer], artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundler:
    place = tmp_path / "bundles"
    place.mkdir()
    # Where no runtime.toml lies: a checkout's own would be taken.
    monkeypatch.chdir(place)
    return Bundler(call, artifacts / "mkfs.erofs", place)
