# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests: a copy of the checkout's recipes to break."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkout import copy_recipes

Edit = Callable[[str, str, str], None]


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Path:
    """Recipes, patches and the manifest of this checkout, in a folder of the test's own."""
    return copy_recipes(repository, tmp_path / "checkout")


@pytest.fixture
def edit(copied: Path) -> Edit:
    """edit(file, old, new) in the copy; `old` must stand there, or the test would test nothing."""

    def change(file: str, old: str, new: str) -> None:
        path = copied / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    return change
