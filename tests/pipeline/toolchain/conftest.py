# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A workshop, and what lies outside of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.toolchain.package_kit import Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "shop")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Everything beside the workshop; must be as it was when the test ends."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_text("untouched")
    yield place
    assert [p.name for p in place.iterdir()] == ["precious"]
    assert (place / "precious").read_text() == "untouched"
