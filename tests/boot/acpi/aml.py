# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""AML payloads, compiled by the pinned iasl: each says a letter at a port, so that the test sees how far it got."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.boot.acpi.machine import PORT

DONE = "."
"""What a payload says when it has come to its end."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """A device whose _INI says `letter`, reads `bits` at `address`, writes `value` there unless it is None, says DONE.

    ACPICA ends a method at an access that is refused: the letter is then all that it says.
    """

    letter: str
    address: int
    value: int | None
    bits: int = 8
    space: str = "SystemMemory"
    place: str = r"\_SB"
    name: str = 'Name (_HID, "SEVT0001")'
    method: str = "_INI"

    def source(self, number: int) -> str:
        """ASL."""
        width = {8: "Byte", 16: "Word", 32: "DWord", 64: "QWord"}[self.bits]
        write = "" if self.value is None else f"Store ({self.value:#x}, DATA)"
        return f"""
        Scope ({self.place}) {{ Device (EV{number:02X}) {{
            {self.name}
            OperationRegion (TARG, {self.space}, {self.address:#x}, {self.bits // 8})
            Field (TARG, {width}Acc, NoLock, Preserve) {{ DATA, {self.bits} }}
            Method ({self.method}) {{
                \\SAY ({ord(self.letter):#x})
                Store (DATA, Local0)
                {write}
                \\SAY ({ord(DONE):#x})
            }}
        }} }}"""


def table(folder: Path, iasl: Path, parts: Sequence[Access | str]) -> bytes:
    """The SSDT of these parts; text is ASL as it is."""
    body = "".join(part if isinstance(part, str) else part.source(i) for i, part in enumerate(parts))
    source = f"""DefinitionBlock ("", "SSDT", 2, "SEVTST", "PAYLOAD", 1)
    {{
        External (\\_SB.PCI0, DeviceObj)
        OperationRegion (PORT, SystemIO, {PORT:#x}, 1)
        Field (PORT, ByteAcc, NoLock, Preserve) {{ OUT, 8 }}
        Method (\\SAY, 1) {{ Store (Arg0, OUT) }}
        {body}
    }}"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "payload.asl").write_text(source)
    argv = [os.fspath(iasl), "-p", os.fspath(folder / "payload"), os.fspath(folder / "payload.asl")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "payload.aml").read_bytes()
