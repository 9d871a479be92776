# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""AML payloads, compiled by the pinned iasl: each says a letter at a port, so that the test sees how far it got."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.attack.acpi.machine import PORT
from tools.pipeline.base.errors import BuildError

DONE = "."
"""What a payload says when it has come to its end."""

OWN_TABLE = "DataTable"
"""The space of an Access to the payload's own table, by its name."""

_OEM = "SEVTST", "PAYLOAD"


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
        region, skipped = f"OperationRegion (TARG, {self.space}, {self.address:#x}, {self.bits // 8})", ""
        if self.space == OWN_TABLE:
            region, skipped = f'DataTableRegion (TARG, "SSDT", "{_OEM[0]}", "{_OEM[1]}")', f"Offset ({self.address}),"
        return f"""
        Scope ({self.place}) {{ Device (EV{number:02X}) {{
            {self.name}
            {region}
            Field (TARG, {width}Acc, NoLock, Preserve) {{ {skipped} DATA, {self.bits} }}
            Method ({self.method}) {{
                \\SAY ({ord(self.letter):#x})
                Store (DATA, Local0)
                {write}
                \\SAY ({ord(DONE):#x})
            }}
        }} }}"""


def table(folder: Path, iasl: Path, parts: Sequence[Access | str]) -> bytes:
    """The SSDT of these parts, in `folder` as payload.aml; text is ASL as it is. BuildError if iasl refuses it."""
    body = "".join(part if isinstance(part, str) else part.source(i) for i, part in enumerate(parts))
    source = f"""DefinitionBlock ("", "SSDT", 2, "{_OEM[0]}", "{_OEM[1]}", 1)
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
    if done.returncode != 0:
        raise BuildError(
            "is refused", where=str(folder / "payload.asl"), details=(done.stdout + done.stderr).splitlines()
        )
    return (folder / "payload.aml").read_bytes()
