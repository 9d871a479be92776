# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Descriptors of a queue that say, each of them, that another one follows.

A driver that believes them when a buffer comes back walks for ever, with interrupts off: the processor never returns,
and nothing panics. Every guest has such a queue: the agent's input.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Undefended
from tools.attack.base.target import Target
from tools.attack.guests import agent
from tools.attack.guests.agent import Guest
from tools.attack.guests.monitor import Monitor
from tools.attack.undefended.kernel import debian
from tools.attack.vhost.root import root
from tools.attack.vhost.twin import Twin
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError

_INTO = 4  # the agent's port is port 1; its input queue (virtio 1.2, 5.3.2), whose buffers are always under way
_EROFS = 2  # of CONTAINER's kinds of root
_LIMIT, _PERIOD = 300.0, 0.2  # seconds, and between two looks
_BURNT = 6.0  # seconds of QEMU's processor time without a word of the guest: its processor goes round in circles
_OPTIONS = (
    "-qmp", "unix:qmp.sock,server=on,wait=off",
    "-qtest", "unix:qtest.sock,server=on,wait=off", "-qtest-log", "/dev/null",
)  # fmt: skip


def attempt(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The guest's processor does not come back from the next words that it hears."""
    door = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # a socket's path has at most 107 bytes
    place = Path(f"/proc/self/fd/{door}")
    image = root(lab).image
    try:
        with Guest(
            qemu=lab.qemu, kernel=target.kernel, initrd=target.initramfs, disk=image, folder=folder, options=_OPTIONS
        ) as guest:
            guest.expect(agent.HELLO)
            monitor = Monitor(place / "qmp.sock")
            try:
                with Twin(monitor, place / "qtest.sock") as twin:
                    twin.endless(twin.queue(_INTO))
                return _talk(guest, monitor)
            finally:
                monitor.close()
    finally:
        os.close(door)


def _talk(guest: Guest, monitor: Monitor) -> Outcome:
    guest.send(agent.HELLO, payload=agent.hello())
    guest.send(agent.CONTAINER, payload=agent.container(kind=_EROFS))
    guest.link.settimeout(_PERIOD)
    before = monitor.cpu_seconds()
    deadline = ambient.monotonic() + _LIMIT
    while ambient.monotonic() < deadline:
        try:
            frame = guest.receive()
        except TimeoutError:
            if monitor.cpu_seconds() - before > _BURNT:
                return Outcome(succeeded=True, guest="its processor never comes back")
            continue
        before = monitor.cpu_seconds()
        match frame:
            case (agent.READY, _, _):
                guest.send(agent.SPAWN, 1, agent.spawn(b"true", flags=2))
            case (agent.EXITED, 1, _):
                return Outcome(succeeded=False, guest="its program runs on, and ends")
            case None:
                return Outcome(succeeded=False, guest="it powers off")
    raise BuildError("the guest neither speaks nor uses its processor")


def attacks() -> Iterator[Attack]:
    """One row."""
    yield Attack(
        name="input",
        host="marks every descriptor of the agent's input queue as continued by another one",
        attempt=attempt,
        control=Undefended(what="Debian's kernel", target=debian),
        parts=frozenset({Part.KERNEL}),
    )
