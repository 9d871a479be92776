# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""AML in a table of the host's, which no launch digest covers, reads and writes each kind of memory.

One start of each kernel tries all of them; the rows share it. Debian's kernel obeys.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.acpi import memory
from tools.attack.acpi.memory import KINDS, Tried
from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.undefended import kernel
from tools.pipeline.base.errors import BuildError

_COMMAND_LINE = "K"


def _tried(lab: Lab, target: Target) -> Tried:
    """The start of that target with all accesses, once."""

    def start() -> Tried:
        # A comma in the name of a file would end it in QEMU's options.
        folder = lab.folder(f"acpi memory {target.name}".replace(",", ""))
        tried = memory.attempt(kernel.side(lab, target), folder, lab.tool("iasl", "build"))
        tried.boot.memory.unlink()
        if not tried.ran:
            raise BuildError(f"the host's AML did not run to its end: it said {tried.boot.said[:200]!r}")
        return tried

    return lab.once(f"acpi memory {target.name}", start)


def attempt(lab: Lab, target: Target, _folder: Path, *, letter: str) -> Outcome:
    """Whether that access was made; the command line must be another, too."""
    tried = _tried(lab, target)
    made = tried.made(letter) and (letter != _COMMAND_LINE or tried.command_line)
    return Outcome(succeeded=made, guest="AML did it" if made else "AML ran, and was refused that memory")


def attacks() -> Iterator[Attack]:
    """A row for each kind of memory that must be out of reach."""
    for letter in (letter for letter in KINDS if letter.isupper()):
        yield Attack(
            name=_NAMES[letter],
            host=f"has AML of its own (-acpitable) reach {KINDS[letter]}",
            attempt=partial(attempt, letter=letter),
            control=Undefended(what="Debian's kernel", target=kernel.debian),
            parts=frozenset({Part.KERNEL}),
            reach=Reach.KERNEL,
            short=letter == _COMMAND_LINE,
        )


_NAMES = {
    _COMMAND_LINE: "command-line-written",
    "R": "command-line-read",
    "F": "reclaimed-memory",
    "B": "half-memory-half-window",
    "E": "efi-runtime-memory",
    "S": "secrets-written",
    "L": "secrets-read",
    "T": "tables-written",
    "D": "table-by-name",
}
