# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A method for a general-purpose event: the host runs AML when it likes, long after the guest has started."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tools.attack.acpi import aml, tables
from tools.attack.acpi.aml import DONE, Access
from tools.attack.acpi.attempts import Result
from tools.attack.acpi.host import FREE, Side
from tools.attack.acpi.machine import PORT, Boot
from tools.pipeline.base.errors import BuildError

_NEW = 0x78
_PLUGGED = b"_E02"  # QEMU's method for a processor that was plugged in; it makes way for ours
_OUT_OF_THE_WAY = b"_X02"
_EVERY = 20  # looks at the guest between two processors
_READY = Access(letter="R", address=PORT, value=None, space="SystemIO")
_EVENT = "E"
_PAYLOAD = rf"""
    Scope (\_GPE) {{
        OperationRegion (TARG, SystemMemory, {FREE:#x}, 1)
        Field (TARG, ByteAcc, NoLock, Preserve) {{ DATA, 8 }}
        Method (_E02) {{ \SAY ({ord(_EVENT):#x}) Store ({_NEW:#x}, DATA) \SAY ({ord(DONE):#x}) }}
    }}"""


class Monitor(Protocol):
    """QEMU's, as far as it is needed."""

    def execute(self, command: str, /, **arguments: object) -> Any:
        """Run one command; what it returns."""

    def close(self) -> None:
        """Hang up."""


@dataclass(kw_only=True)
class _Plugs:
    """Plugs in processor after processor until the second event: by then the first one's method has ended."""

    connect: Callable[[], Monitor]
    looks: int = 0
    monitor: Monitor | None = None

    def __call__(self, boot: Boot) -> bool:
        if boot.said.count(_EVENT) >= 2:
            return True
        # Not while the firmware counts processors: it would start over.
        self.looks += _READY.letter in boot.said
        if self.looks and self.looks % _EVERY == 0:
            self._plug()
        return False

    def _plug(self) -> None:
        self.monitor = self.monitor or self.connect()
        cpus = self.monitor.execute("query-hotpluggable-cpus")
        empty = [cpu for cpu in cpus if "qom-path" not in cpu]
        if empty:
            self.monitor.execute("device_add", driver=empty[-1]["type"], **empty[-1]["props"])


def method(side: Side, folder: Path, iasl: Path, *, connect: Callable[[Path], Monitor]) -> Result:
    """The method of an event that the host raises when the guest has started; `connect` to QEMU's socket there."""
    dsdt = side.tables["DSDT"]
    if dsdt.count(_PLUGGED) != 1:
        raise BuildError(f"has no method {_PLUGGED.decode()}", where="QEMU's DSDT")
    changed = {**side.tables, "DSDT": tables.patched(dsdt.replace(_PLUGGED, _OUT_OF_THE_WAY), {})}
    options = tables.options(folder / "tables", changed, aml.table(folder / "aml", iasl, [_READY, _PAYLOAD]))
    # Waits for its root, and so for events.
    waits = dataclasses.replace(side.machine, cmdline=f"{side.machine.cmdline} root=/dev/vdz rootwait")
    plugs = _Plugs(connect=lambda: connect(folder / "guest/qmp.sock"))
    more = ("-smp", "1,maxcpus=8", "-qmp", "unix:qmp.sock,server=on,wait=off")
    try:
        boot = waits.start(folder / "guest", *options, *more, until=plugs)
    finally:
        if plugs.monitor is not None:
            plugs.monitor.close()
    return Result(boot=boot, ran=boot.said.count(_EVENT) >= 2, obeyed=boot.read(FREE, 1) == bytes([_NEW]))
