# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An engine's folders, and the real mkfs.erofs."""

from pathlib import Path

import pytest

from tests.runtime.image.overlay_kit import Here


@pytest.fixture
def here(tmp_path: Path, artifacts: Path) -> Here:
    return Here(tmp_path, artifacts / "mkfs.erofs")
