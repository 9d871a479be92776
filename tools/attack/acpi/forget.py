# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""AML that puts another word into a guest's command line after it was measured, under the launcher and with the agent.

The host starts the guest twice, with its memory in a file, and looks where the kernel keeps its command line both
times, for not all of it is at the same place at each start; then again, with a table whose _INI writes another word
there.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.attack.acpi import aml
from tools.attack.acpi.aml import DONE, Access
from tools.attack.acpi.machine import PORT

_LETTER = "W"
# In QEMU's place. The launcher asks for version and devices, too: those are answered as they are.
_QEMU = """\
#!{python}
import os, sys
words = sys.argv[1:]
if "-append" in words:
    words[words.index("-append") + 1] = {cmdline!r}
    (loader,) = (i for i, word in enumerate(words) if word.startswith("loader,file="))
    words[loader] = "loader,file=" + {table!r} + words[loader][words[loader].index(",addr="):]
    words += {options!r}
os.execv({qemu!r}, [{qemu!r}, *words])
"""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host in a folder of its own, where QEMU's user may write, too.

    It starts every guest with `cmdline`, whatever the launcher says, and with `table`, the hashes table that demands
    it; `memory` is what the guest has, in bytes.
    """

    folder: Path
    qemu: Path
    cmdline: str
    table: bytes
    memory: int

    def program(self, *options: str) -> Path:
        """QEMU with more options, the guest's memory in a file, and a port for AML to speak at."""
        (self.folder / "hashes").write_bytes(self.table)
        (self.folder / "hashes").chmod(0o644)
        for name in ("memory", "said"):
            path = self.folder / name
            path.unlink(missing_ok=True)
            path.touch()
            path.chmod(0o666)
        with (self.folder / "memory").open("r+b") as file:
            file.truncate(self.memory)
        ram = f"memory-backend-file,id=hostram,size={self.memory},mem-path={self.folder / 'memory'},share=on"
        # fmt: off
        words = [
            "-object", ram,
            "-machine", "memory-backend=hostram",
            "-chardev", f"file,id=said,path={self.folder / 'said'}",
            "-device", f"isa-debugcon,iobase={PORT:#x},chardev=said",
            *options,
        ]
        # fmt: on
        path = self.folder / "qemu"
        path.write_text(
            _QEMU.format(
                python=sys.executable,
                cmdline=self.cmdline,
                table=str(self.folder / "hashes"),
                options=words,
                qemu=str(self.qemu),
            )
        )
        path.chmod(0o755)
        return path

    def find(self, word: bytes) -> set[int]:
        """Where the guest that ran last had the word."""
        return {match.start() for match in re.finditer(re.escape(word), (self.folder / "memory").read_bytes())}

    def attack(self, iasl: Path, places: Iterable[int], old: bytes, new: bytes) -> Path:
        """As program(), with a table that writes `new`, as long as `old`, to all places where that is."""
        payload = [access for at in sorted(places) for access in _writes(at, old, new)]
        aml.table(self.folder, iasl, payload)
        (self.folder / "payload.aml").chmod(0o644)
        return self.program("-acpitable", f"file={self.folder / 'payload.aml'}")

    def said(self) -> tuple[int, int]:
        """How many of the payload's accesses were tried, and how many were made."""
        text = (self.folder / "said").read_text()
        return text.count(_LETTER), text.count(DONE)


def _writes(at: int, old: bytes, new: bytes) -> Iterator[Access]:
    for offset, (before, after) in enumerate(zip(old, new, strict=True)):
        if before != after:
            yield Access(letter=_LETTER, address=at + offset, value=after)
