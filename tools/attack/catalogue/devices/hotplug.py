# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Devices that come and go while the workload runs."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Undefended
from tools.attack.base.target import Target
from tools.attack.guests import agent
from tools.attack.guests.agent import Guest
from tools.attack.guests.monitor import Monitor
from tools.attack.undefended.kernel import debian
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.play import DECIDE, READY, RIGHT, WAIT, WRONG, Lie, Play, play
from tools.attack.vhost.qemu import PROTECTED
from tools.attack.vhost.root import root
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.KERNEL, Part.AGENT})
_PORTS = ("-device", "pcie-root-port,id=port0,chassis=1,slot=1", "-device", "pcie-root-port,id=port1,chassis=2,slot=2")
# The launcher's device has room for the agent's port alone; a host who wants more room makes it.
_ROOM = ("-set", "device.serial0.max_ports=31")
_EMPTY = ("-blockdev", "driver=null-co,node-name=empty,size=1048576")
_LIST = "ls /sys/bus/pci/devices /sys/bus/virtio/devices /sys/block"
# Three seconds of the guest's own time, in which Debian's kernel has long set up what is plugged in.
_LOOK = "sleep 3"
_EROFS = 2  # of CONTAINER's kinds of root
_LIMIT, _PERIOD = 60.0, 0.2  # seconds for a kernel that does look, and between two looks at it

_Done = Callable[[Monitor], None]


def _nothing(_: Monitor) -> None:
    """An honest host."""


def _plug_disk(monitor: Monitor) -> None:
    monitor.execute("device_add", driver="virtio-blk-pci", id="hot0", bus="port0", drive="empty", serial="rootfs")


def _plug_port(monitor: Monitor) -> None:
    monitor.execute("device_add", driver="virtserialport", id="hot0", bus="serial0.0", name="another")
    monitor.execute("device_add", driver="virtconsole", id="hot1", bus="serial0.0")


def _pull_port(monitor: Monitor) -> None:
    path = "/machine/peripheral-anon"
    found = [item["name"] for item in monitor.execute("qom-list", path=path) if "virtserialport" in item["type"]]
    if len(found) != 1:
        raise BuildError(f"{len(found)} ports, not one")
    monitor.execute("device_del", id=f"{path}/{found[0]}")


def _pull_disk(monitor: Monitor) -> None:
    monitor.execute("device_del", id="disk0")


def function(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The guest's kernel sets up a device that was not there when it started."""
    options = (*_PORTS, "-qmp", "unix:qmp.sock,server=on,wait=off")
    door = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # a socket's path has at most 107 bytes
    disk = root(lab).image
    try:
        with Guest(
            qemu=lab.qemu, kernel=target.kernel, initrd=target.initramfs, disk=disk, folder=folder, options=options
        ) as guest:
            guest.expect(agent.HELLO)
            monitor = Monitor.connect(Path(f"/proc/self/fd/{door}/qmp.sock"))
            try:
                monitor.execute("device_add", driver="virtio-serial-pci", id="hot0", bus="port0")
                return _set_up(guest, monitor)
            finally:
                monitor.close()
    finally:
        os.close(door)


def _set_up(guest: Guest, monitor: Monitor) -> Outcome:
    """Looks while the guest mounts its root, if it can, and runs a program for three seconds of its own time."""
    guest.send(agent.HELLO, payload=agent.hello())
    guest.send(agent.CONTAINER, payload=agent.container(kind=_EROFS))
    guest.link.settimeout(_PERIOD)
    deadline = ambient.monotonic() + _LIMIT
    while ambient.monotonic() < deadline:
        status = monitor.execute("x-query-virtio-status", path="/machine/peripheral/hot0/virtio-backend")["status"]
        if any("DRIVER_OK" in word for word in status["statuses"]):
            return Outcome(succeeded=True, guest="its kernel runs the new device")
        try:
            frame = guest.receive()
        except TimeoutError:
            continue
        match frame:
            case (agent.READY, _, _):
                guest.send(agent.SPAWN, 1, agent.spawn(b"sleep", b"3", flags=2))
            case (agent.EXITED, 1, _):
                return Outcome(succeeded=False, guest="its kernel does not see the new device; its program ran on")
            case None:
                break
    raise BuildError("the new device was not set up, and nothing else ran")


def attempt(
    lab: Lab, target: Target, folder: Path, *, during: _Done, lies: Sequence[Lie] = (), more: Sequence[str] = _PORTS
) -> Outcome:
    """A disk or device more than before, or a wrong answer, while the workload runs."""
    script = f"{_LIST} >/tmp/before; {WAIT}; {_LOOK}; {_LIST} | diff /tmp/before - | grep ^+; {DECIDE}"
    seen = play(lab, target, folder, Play(lies=lies, script=script, more=more, during=during, append=""))
    if READY not in seen.output:
        raise BuildError(f"the workload did not come so far: {seen.became}")
    new = [line for line in seen.output.splitlines() if line.startswith("+") and not line.startswith("+++")]
    return Outcome(succeeded=bool(new) or WRONG in seen.output, guest=seen.became.removeprefix(READY).strip("; "))


def honest(lab: Lab, target: Target, folder: Path, *, lies: Sequence[Lie] = ()) -> Outcome:
    """Nothing is plugged in or pulled out; once for all rows."""

    def run() -> Outcome:
        seen = attempt(lab, target, folder, during=_nothing, lies=lies)
        return Outcome(succeeded=not seen.succeeded and seen.guest == RIGHT, guest=seen.guest)

    return lab.once(f"hotplug, nothing, {target.name}, {len(lies)} disks", run)


def attacks() -> Iterator[Attack]:
    """What is plugged in, and what is pulled out."""
    nothing = Honest(what="nothing is plugged in or pulled out", attempt=honest)
    behind = [Lie(kind=Disk, options=f"{PROTECTED},bus=port1,id=disk0")]
    yield Attack(
        name="function",
        host="plugs a PCI function into a running guest",
        attempt=function,
        control=Undefended(what="Debian's kernel", target=debian),
        parts=frozenset({Part.KERNEL}),
        short=True,
    )
    yield Attack(
        name="second-root-disk",
        host="plugs in a second disk with the root's serial number",
        attempt=partial(attempt, during=_plug_disk, more=(*_PORTS, *_EMPTY)),
        control=nothing,
        parts=_PARTS,
    )
    yield Attack(
        name="more-ports",
        host="plugs a port and a console into the agent's serial device",
        attempt=partial(attempt, during=_plug_port, more=(*_PORTS, *_ROOM)),
        control=nothing,
        parts=_PARTS,
    )
    yield Attack(
        name="agent-port-pulled",
        host="pulls the agent's port out of its serial device",
        attempt=partial(attempt, during=_pull_port),
        control=nothing,
        parts=_PARTS,
    )
    yield Attack(
        name="root-disk-pulled",
        host="asks for the removal of the root disk while it is in use (vhost-user disk)",
        attempt=partial(attempt, during=_pull_disk, lies=behind),
        control=Honest(what="the disk stays", attempt=partial(honest, lies=behind)),
        parts=_PARTS,
    )
