# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A second boot: the host leaves -no-reboot out, resets, and offers something else to what boots then.

The memory of the first boot is still there. A guest whose registers or whole state are encrypted cannot be reset at
all by QEMU; what a hypervisor of the host's own can do there takes hardware.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Weaker
from tools.attack.base.target import Target
from tools.attack.guests import agent, disks
from tools.attack.guests.machine import Machine, Setup, Speaker
from tools.pipeline.base.errors import BuildError
from tools.sev.workload.document import Document, Process

Reset = Callable[[Machine], None]
_OWN = b"of the host"
_SCRIPT = "cat /etc/motd; echo up; sleep 1000"


def reset(machine: Machine) -> None:
    """By the button."""
    machine.monitor.execute("system_reset")


def machine_check(machine: Machine) -> None:
    """By an error of the machine that the kernel does not take: a CPU then shuts down, and the board resets it."""
    machine.monitor.human("mce 0 1 0xbd00000000000134 0x7 0x1000 0x8c")


def _document(script: str) -> Callable[[Lab], Document]:
    def make(lab: Lab) -> Document:
        process = Process(argv=("sh", "-c", script), environment=disks.ENVIRONMENT)
        return Document(root=disks.plain(lab).root, process=process)

    return make


def own_program(lab: Lab, target: Target, folder: Path, *, by: Reset, bound: bool) -> Outcome:
    """In the second boot a host wants a program of its own. `bound` False: the guest leaves what runs to it."""
    document = _document(_SCRIPT)(lab) if bound else None
    with Machine(lab, target, folder, Setup(disk=disks.plain(lab).data, document=document, reboots=True)) as machine:
        guest = Speaker(machine)
        if document is not None:
            guest.start(document)
            guest.until(b"up\n")
        else:
            guest.ready()
        by(machine)
        guest.greeted_again()
        guest.send(agent.HELLO, payload=agent.hello())
        guest.send(agent.CONTAINER, payload=agent.container())
        return _said(guest, agent.SPAWN, agent.spawn(b"echo", _OWN, flags=2))


def early(lab: Lab, target: Target, folder: Path, *, bound: bool) -> Outcome:
    """Resets in the middle of firmware and kernel, then the same."""

    def by(machine: Machine) -> None:
        for part in (0.2, 0.6, 1.2):
            until = machine.monitor.cpu_seconds() + part
            while machine.monitor.cpu_seconds() < until:
                if machine.monitor.event("SHUTDOWN", limit=0.02) is not None:
                    raise BuildError("it ended")
            machine.monitor.execute("system_reset")

    def again(machine: Machine) -> None:
        reset(machine)
        by(machine)

    return own_program(lab, target, folder, by=again, bound=bound)


def other_document(lab: Lab, target: Target, folder: Path, *, honest: bool) -> Outcome:
    """In the second boot the host brings a document of its own. `honest`: to a guest that is bound to that one."""
    first, other = _document(_SCRIPT)(lab), _document(f"echo {_OWN.decode()}")(lab)
    setup = Setup(disk=disks.plain(lab).data, document=other if honest else first, reboots=True)
    with Machine(lab, target, folder, setup) as machine:
        guest = Speaker(machine)
        if not honest:
            guest.start(first)
            guest.until(b"up\n")
            reset(machine)
        guest.greeted_again()
        guest.send(agent.HELLO, payload=agent.hello())
        guest.send(agent.WORKLOAD, payload=other.data)
        guest.send(agent.PREPARE, payload=agent.counted(b""))
        return _said(guest, agent.RUN, agent.run_entry())


def other_disk(lab: Lab, target: Target, folder: Path, *, bound: bool) -> Outcome:
    """Between the boots the host changes a file on the disk, whose place the guest has already read."""
    disk = disks.plain(lab).data
    at = disk.index(disks.HONEST.split(b"\n")[0])
    document = _document(_SCRIPT)(lab) if bound else None
    with Machine(lab, target, folder, Setup(disk=disk, document=document, reboots=True)) as machine:
        guest = Speaker(machine)
        if document is not None:
            guest.start(document)
            guest.until(b"up\n")
        else:
            guest.ready()
        with (folder / "disk").open("r+b") as stream:
            stream.seek(at)
            stream.write(_OWN)
        reset(machine)
        guest.greeted_again()
        guest.send(agent.HELLO, payload=agent.hello())
        if document is not None:
            guest.send(agent.WORKLOAD, payload=document.data)
            guest.send(agent.PREPARE, payload=agent.counted(b""))
            return _said(guest, agent.RUN, agent.run_entry())
        guest.send(agent.CONTAINER, payload=agent.container())
        return _said(guest, agent.SPAWN, agent.spawn(b"cat", b"/etc/motd", flags=2))


def _said(guest: Speaker, kind: int, start: bytes) -> Outcome:
    """Start a program once there is a container; the attack wants to see its own words.

    BuildError when the guest says nothing at all.
    """
    heard = guest.hear(lambda results: results[0].ready or results[0].error is not None)
    error = heard[0].error
    if heard[0].ready:
        guest.send(kind, 1, start)
        heard = guest.hear(lambda results: _OWN in results[1].out or results[1].over or results[0].error is not None)
        if _OWN in heard[1].out:
            return Outcome(succeeded=True, guest=f"its second boot said {_OWN.decode()!r}")
        error = heard[0].error or heard[1].error
    if error is None:
        raise BuildError(f"the second boot says nothing; {guest.machine.said}")
    return Outcome(succeeded=False, guest=f"its second boot refused: {error[1]}")


def attacks() -> Iterator[Attack]:
    """The rows."""
    unbound = "a guest that is not bound"
    for name, host, by in (
        ("own-program", "resets, and asks the second boot for a program of its own", reset),
        (
            "machine-check",
            "raises a machine check, which resets, and asks the second boot for a program",
            machine_check,
        ),
    ):
        control = Weaker(what=unbound, attempt=partial(own_program, by=by, bound=False))
        attempt = partial(own_program, by=by, bound=True)
        yield Attack(name=name, host=host, attempt=attempt, control=control, short=name == "own-program")
    yield Attack(
        name="mid-boot",
        host="resets in the middle of firmware and kernel, three times, and asks for a program of its own",
        attempt=partial(early, bound=True),
        control=Weaker(what=unbound, attempt=partial(early, bound=False)),
    )
    yield Attack(
        name="other-document",
        host="resets, and brings the second boot another workload document",
        attempt=partial(other_document, honest=False),
        control=Honest(what="a guest of that document", attempt=partial(other_document, honest=True)),
    )
    yield Attack(
        name="other-disk",
        host="changes the disk behind the first boot, and resets",
        attempt=partial(other_disk, bound=True),
        control=Weaker(what=unbound, attempt=partial(other_disk, bound=False)),
    )
