# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Memory, a CPU, a device, added to a guest that runs: it goes on with what it was started with.

More of them is more of the host's in the guest: memory that nobody measured or accepted, a CPU whose registers nobody
did. The honest case has the same from the start, and the same program sees it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome
from tools.attack.base.target import Target
from tools.attack.guests import agent, disks
from tools.attack.guests.machine import Machine, Setup, Speaker
from tools.pipeline.base.errors import BuildError
from tools.sev.workload.document import Document, Doors, Process

_DEVICES = "ls /sys/bus/pci/devices | grep -c -v ^0000:00:"
_LOOK = f"echo $(nproc) $(awk '/MemTotal/ {{print int($2 / 65536)}}' /proc/meminfo) $({_DEVICES})"
# Behind the host's word the kernel has two seconds of the guest's time for what it makes of an event.
_SCRIPT = f"{_LOOK}; read word; sleep 2; {_LOOK}"


@dataclass(frozen=True, kw_only=True)
class Plug:
    """What is added. `room` makes room for it at the start, `there` has it there from the start.

    The program then sees so many `cpus`, so many `parts` of 64 MiB, so many `devices` behind ports.
    """

    host: str
    add: Callable[[Machine], object]
    room: Mapping[str, str] = field(default_factory=dict)
    room_options: tuple[str, ...] = ()
    there: Mapping[str, str] = field(default_factory=dict)
    there_options: tuple[str, ...] = ()
    cpus: int = 1
    parts: int = 7
    devices: int = 0

    @property
    def look(self) -> list[int]:
        """What the program sees of it."""
        return [self.cpus, self.parts, self.devices]


def _memory(machine: Machine) -> None:
    backend = {"qom-type": "memory-backend-ram", "id": "more", "size": 256 << 20}
    machine.monitor.execute("object-add", **backend)
    machine.monitor.execute("device_add", driver="pc-dimm", id="dimm", memdev="more")
    # The kernel has looked at the event, whatever it makes of it.
    if machine.monitor.event("ACPI_DEVICE_OST") is None:
        raise BuildError("the guest never heard of the memory")


def _cpu(machine: Machine) -> None:
    free = [slot for slot in machine.monitor.execute("query-hotpluggable-cpus") if "qom-path" not in slot]
    machine.monitor.execute("device_add", driver=free[0]["type"], id="cpu", **free[0]["props"])


def _device(machine: Machine) -> None:
    machine.monitor.execute("device_add", driver="virtio-rng-pci", id="late", bus="rp0")


_PORT = ("-device", "pcie-root-port,id=rp0,slot=1")
PLUGS = {
    "memory": Plug(
        host="plugs in a module of memory",
        add=_memory,
        room={"-m": "512M,slots=2,maxmem=2G"},
        there={"-m": "768M"},
        parts=11,
    ),
    "cpu": Plug(
        host="plugs in a second CPU",
        add=_cpu,
        room={"-smp": "1,maxcpus=2"},
        there={"-smp": "2"},
        cpus=2,
    ),
    "pci-device": Plug(
        host="plugs a virtio device into a port of PCI Express",
        add=_device,
        room_options=_PORT,
        there_options=(*_PORT, "-device", "virtio-rng-pci,id=late,bus=rp0"),
        devices=1,
    ),
}


def attempt(lab: Lab, target: Target, folder: Path, *, plug: Plug) -> Outcome:
    """Add it while the guest runs; the attack wants the guest to take it."""
    before, after = _looks(lab, target, folder, replaced=plug.room, options=plug.room_options, act=plug.add)
    same = before == after
    return Outcome(succeeded=not same, guest=f"goes on without it: {_words(after)}" if same else f"has {_words(after)}")


def honest(lab: Lab, target: Target, folder: Path, *, plug: Plug) -> Outcome:
    """With it from the start the same program sees it."""
    _, look = _looks(lab, target, folder, replaced=plug.there, options=plug.there_options)
    return Outcome(succeeded=look == plug.look, guest=f"has {_words(look)}")


def _looks(
    lab: Lab,
    target: Target,
    folder: Path,
    *,
    replaced: Mapping[str, str],
    options: tuple[str, ...],
    act: Callable[[Machine], object] = lambda _: None,
) -> tuple[list[int], list[int]]:
    """What the program sees before and after: CPUs, memory in parts of 64 MiB, devices behind ports."""
    disk = disks.plain(lab)
    process = Process(argv=("sh", "-c", _SCRIPT), environment=disks.ENVIRONMENT, host=Doors(stdin=True))
    document = Document(root=disk.root, process=process)
    setup = Setup(disk=disk.data, document=document, replaced=replaced, options=options)
    with Machine(lab, target, folder, setup) as machine:
        guest = Speaker(machine)
        guest.start(document)
        before = guest.until(b"\n").out.split()
        act(machine)
        guest.send(agent.STDIN, 1, b"go\n")
        result = guest.rest()
    after = result.out.split()
    if len(before) != 3 or len(after) != 3:
        raise BuildError(f"the program saw {before} and then {after}")
    return list(map(int, before)), list(map(int, after))


def _words(look: list[int]) -> str:
    cpus, parts, devices = look
    return f"CPUs: {cpus}; memory: about {64 * (parts + 1)} MiB; devices behind ports: {devices}"


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, plug in PLUGS.items():
        yield Attack(
            name=name,
            host=plug.host,
            attempt=partial(attempt, plug=plug),
            control=Honest(what="there from the start", attempt=partial(honest, plug=plug)),
        )
