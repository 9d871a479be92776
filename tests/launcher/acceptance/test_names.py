# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The threat model and the command speak of the same things: what needs hardware is a line, and each line is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.launcher.acceptance.catalogue import CHECKS
from tools.launcher.acceptance.model import PROTECTED, Guest

_NAME = re.compile(r"`acceptance/([a-z0-9-]+)`")
# Where the word stands, and nothing is claimed of an encrypted guest.
_NO_CLAIM = (
    "No SEV hardware was at hand",
    "What that command cannot show",
)


def paragraphs(text: str) -> Iterator[str]:
    """Lines of a list, and what stands between empty lines; each on one line."""
    for block in re.split(r"\n(?=- |\n)", text):
        if block.strip():
            yield " ".join(block.split())


def needing(text: str) -> list[str]:
    """Claims that speak of hardware as what is missing."""
    found = [block for block in paragraphs(text) if re.search(r"needs? hardware|takes hardware|only hardware", block)]
    return [block for block in found if not block.startswith(_NO_CLAIM)]


def unnamed(text: str) -> list[str]:
    """Those that name no line of the table."""
    return [block for block in needing(text) if _NAME.search(block) is None]


@pytest.fixture
def model(repository: Path) -> str:
    return (repository / "docs/threat-model.md").read_text()


def test_every_claim_that_needs_hardware_names_its_line(model: str) -> None:
    assert len(needing(model)) >= 10
    assert unnamed(model) == []
    assert unnamed(model.replace("`acceptance/platform-device`", "it")) != []
    # The word alone is enough to be asked for a name, wherever it is written.
    assert unnamed(f"{model}\n- **Something new.** It needs hardware.\n")


def test_every_line_is_a_claim_and_every_claim_a_line(model: str) -> None:
    named = set(_NAME.findall(model))
    known = {check.name for check in CHECKS}
    assert named <= known, named - known
    assert {check.name for check in CHECKS if check.needs_hardware} <= named, known - named


def test_names_are_used_once_and_every_kind_of_guest_has_lines() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    for guest in Guest:
        assert len([check for check in CHECKS if guest in check.guests]) >= 8
    assert not [check for check in CHECKS if check.beyond and check.guests != PROTECTED]


def test_the_page_has_each_line(repository: Path) -> None:
    text = (repository / "docs/acceptance.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert rows == [check.name for check in CHECKS]
