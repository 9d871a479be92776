# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The agent's serial device with an evil twin, which breaks the rules of its rings and of its control messages.

The rings lie in memory that guest and host share, in an encrypted guest as well.
"""

import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.catalogue.devices.rings import SCRIPT, outcome
from tools.attack.guests.monitor import Monitor
from tools.attack.vhost.play import READY, RIGHT, Play, play
from tools.attack.vhost.twin import Twin
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.KERNEL, Part.AGENT})
_DEVICE = "serial0"  # its name on the launcher's command line
# Queues of a device with many ports (virtio 1.2, 5.3.2): control in and out, and the agent's port, which is port 1.
_CONTROL, _INTO = 2, 4
_AGENT = 1
_ADD, _REMOVE, _CONSOLE, _OPEN, _NAME = 1, 2, 4, 6, 7  # control messages that a device may send (5.3.6.2)
_BEATS = 100  # dots, ten seconds of the guest's own time
# The twin acts meanwhile.
_SCRIPT = f"echo {READY}; sleep 4; cat /sys/class/virtio-ports/*/name >/dev/null 2>&1; {SCRIPT}"
_ANOTHER = 9  # a port that is not there
_HEADER = 8  # bytes of a control message

_Does = Callable[[Twin], None]


def _control(port: int, event: int, value: int = 1) -> bytes:
    return struct.pack("<IHH", port, event, value)


def _length_huge(twin: Twin) -> None:
    queue = twin.queue(_INTO)
    twin.complete(queue, twin.head(queue), 0xFFFFFFFF)


def _beyond(twin: Twin) -> None:
    queue = twin.queue(_INTO)
    twin.complete(queue, queue.size, 16)


def _ahead(twin: Twin) -> None:
    queue = twin.queue(_INTO)
    twin.complete(queue, twin.head(queue), 16, ahead=queue.size // 2)


def _short_control(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(_AGENT, _NAME), length=0)


def _nameless(twin: Twin) -> None:
    """The driver counts the bytes behind the header, and one more for the end."""
    twin.message(twin.queue(_CONTROL), _control(_ANOTHER, _ADD))
    twin.message(twin.queue(_CONTROL), _control(_ANOTHER, _NAME), length=_HEADER - 1)


def _no_port(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(0xFFFFFFFF, _REMOVE))


def _port_beyond(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(0xFFFFFFFE, _ADD))


def _remove(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(_AGENT, _REMOVE))


def _console(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(_AGENT, _CONSOLE))


def _closed(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(_AGENT, _OPEN, 0))


def _control_length(twin: Twin) -> None:
    twin.message(twin.queue(_CONTROL), _control(_AGENT, _NAME) + b"x" * 64, length=0xFFFFFFFF)


def _control_beyond(twin: Twin) -> None:
    queue = twin.queue(_CONTROL)
    twin.complete(queue, 0xFFFFFFFF, 8)


def _storm(twin: Twin) -> None:
    for _ in range(1000):
        twin.interrupt()


_ROWS: dict[str, tuple[_Does, str]] = {
    "input-length-huge": (_length_huge, "hands the agent a buffer with a length of 4 GiB"),
    "input-id-beyond": (_beyond, "completes an input buffer beyond the table"),
    "input-index-ahead": (_ahead, "sets the input queue's used index half a ring ahead"),
    "control-length-zero": (_short_control, "sends a control message of no bytes"),
    "control-name-short": (_nameless, "adds a port, and names it by a message that is a byte shorter than its header"),
    "control-length-huge": (_control_length, "sends a control message with a length of 4 GiB"),
    "control-id-huge": (_control_beyond, "completes control buffer 4,294,967,295"),
    "control-port-unknown": (_no_port, "removes port 4,294,967,295"),
    "control-port-beyond": (_port_beyond, "adds port 4,294,967,294"),
    "control-port-removed": (_remove, "removes the agent's port by a message only"),
    "control-port-console": (_console, "declares the agent's port a console"),
    "control-port-closed": (_closed, "declares the agent's port closed"),
    "interrupts": (_storm, "raises the rings' interrupt 1,000 times for nothing"),
}


def attempt(lab: Lab, target: Target, folder: Path, *, does: _Does | None) -> Outcome:
    """While the workload waits."""
    with tempfile.TemporaryDirectory(prefix="sev-qtest-") as place:
        Path(place).chmod(0o777)  # QEMU may be somebody else, and makes its socket there
        path = Path(place) / "s"

        def during(monitor: Monitor) -> None:
            with Twin(monitor, path, _DEVICE) as twin:
                if does is not None:
                    does(twin)

        more = ("-qtest", f"unix:{path},server=on,wait=off", "-qtest-log", "/dev/null")
        what = Play(lies=[], script=_SCRIPT, more=more, during=during, deadly=True, beats=_BEATS)
        seen = play(lab, target, folder, what)
    if READY not in seen.output:
        raise BuildError(f"the workload did not come so far: {seen.became}")
    made = outcome(seen)
    return Outcome(succeeded=made.succeeded, guest=made.guest.removeprefix(READY).strip("; "))


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The twin looks on; once for all rows."""

    def run() -> Outcome:
        seen = attempt(lab, target, folder, does=None)
        return Outcome(succeeded=not seen.succeeded and seen.guest == RIGHT, guest=seen.guest)

    return lab.once(f"serial twin, {target.name}", run)


def attacks() -> Iterator[Attack]:
    """One for each broken rule."""
    for name, (does, host) in _ROWS.items():
        yield Attack(
            name=name,
            host=f"{host} (evil twin of the serial device)",
            attempt=partial(attempt, does=does),
            control=Honest(what="a twin that does nothing", attempt=honest),
            parts=_PARTS,
        )
