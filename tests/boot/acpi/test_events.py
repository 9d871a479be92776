# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A method for a general-purpose event: the host runs AML when it likes, long after the guest has started."""

import os
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from pathlib import Path

from tests.boot.acpi import aml, tables
from tests.boot.acpi.aml import DONE, Access
from tests.boot.acpi.host import FREE, Side
from tests.boot.acpi.machine import PORT, Boot
from tests.boot.measured_kit import Monitor

_NEW = 0x78
_PLUGGED = b"_E02"  # QEMU's method for a processor that was plugged in; it makes way for ours
_OUT_OF_THE_WAY = b"_X02"
_EVERY = 20  # looks at the guest between two processors
_READY = Access(letter="R", address=PORT, value=None, space="SystemIO")
_PAYLOAD = rf"""
    Scope (\_GPE) {{
        OperationRegion (TARG, SystemMemory, {FREE:#x}, 1)
        Field (TARG, ByteAcc, NoLock, Preserve) {{ DATA, 8 }}
        Method (_E02) {{ \SAY ({ord("E"):#x}) Store ({_NEW:#x}, DATA) \SAY ({ord(DONE):#x}) }}
    }}"""


@dataclass(kw_only=True)
class _Plugs:
    """Plugs in processor after processor until the second event: by then the first one's method has ended."""

    folder: Path
    looks: int = 0
    monitors: list[Monitor] = field(default_factory=list)

    def __call__(self, boot: Boot) -> bool:
        if boot.said.count("E") >= 2:
            return True
        # Not while the firmware counts processors: it would start over.
        self.looks += _READY.letter in boot.said
        if self.looks and self.looks % _EVERY == 0:
            self._plug()
        return False

    def _plug(self) -> None:
        if not self.monitors:
            # By its descriptor: a socket's path has at most 107 bytes.
            descriptor = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
            self.monitors.append(Monitor(Path(f"/proc/self/fd/{descriptor}/qmp.sock")))
            os.close(descriptor)
        cpus = self.monitors[0].execute("query-hotpluggable-cpus")
        empty = [cpu for cpu in cpus if "qom-path" not in cpu]
        if empty:
            self.monitors[0].execute("device_add", driver=empty[-1]["type"], **empty[-1]["props"])


def _run(side: Side, folder: Path, iasl: Path) -> Boot:
    dsdt = side.tables["DSDT"]
    assert dsdt.count(_PLUGGED) == 1
    changed = {**side.tables, "DSDT": tables.patched(dsdt.replace(_PLUGGED, _OUT_OF_THE_WAY), {})}
    options = tables.options(folder / "tables", changed, aml.table(folder / "aml", iasl, [_READY, _PAYLOAD]))
    # Waits for its root, and so for events.
    waits = with_fields(side.machine, cmdline=f"{side.machine.cmdline} root=/dev/vdz rootwait")
    plugs = _Plugs(folder=folder / "guest")
    more = ("-smp", "1,maxcpus=8", "-qmp", "unix:qmp.sock,server=on,wait=off")
    try:
        return waits.start(folder / "guest", *options, *more, until=plugs)
    finally:
        for monitor in plugs.monitors:
            monitor.close()


def test_a_method_that_runs_later(undefended: Side, shipped: Side, iasl: Path, tmp_path: Path) -> None:
    """Debian's kernel first: its memory changes."""
    broken = _run(undefended, tmp_path / "undefended", iasl)
    assert broken.said.startswith("R" + DONE + "E" + DONE)
    assert broken.read(FREE, 1) == bytes([_NEW])
    held = _run(shipped, tmp_path / "shipped", iasl)
    assert held.said.startswith("R" + DONE + "EE")
    assert held.read(FREE, 1) == b"\0"
