# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Interrupts and exceptions at moments of the host's choice: what runs goes on as if nothing had been.

They come in as message-signalled interrupts, by which any vector from 16 on can be raised. Vectors below that, and
events that a hypervisor injects into an encrypted guest, take hardware.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Reach
from tools.attack.base.target import Target
from tools.attack.guests import disks, watcher
from tools.attack.guests.machine import Machine, Setup, Speaker
from tools.pipeline.base.errors import BuildError
from tools.sev.workload.document import Document, Process

Act = Callable[[Machine], None]
_KERNEL = frozenset({Part.KERNEL})
_SYSTEM_CALL = 0x80  # IA32_SYSCALL_VECTOR of arch/x86/include/asm/irq_vectors.h
# Asks a CPU to stop before a restart (REBOOT_VECTOR), and the APIC's own last one: the host can stop a guest anyway.
_STOPS = {0xF8, 0xFF}
_COUNT = 20000
# The two last lines are the kernel's own count of what arrived.
_SCRIPT = f"echo up; i=0; while [ $i -lt {_COUNT} ]; do i=$((i+1)); done; echo $i; grep -E 'NMI:|RES:' /proc/interrupts"


def system_calls(machine: Machine) -> None:
    """A hundred times the vector by which 32-bit programs call the kernel."""
    for _ in range(100):
        machine.bus.interrupt(_SYSTEM_CALL)
        time.sleep(0.002)  # each one alone: those that wait are one


def vectors(machine: Machine) -> None:
    """Every vector that does not just stop the CPU, those of exceptions among them, three times."""
    for _ in range(3):
        for vector in range(0x10, 0x100):
            if vector not in _STOPS:
                machine.bus.interrupt(vector)


def nmis(machine: Machine) -> None:
    """By way of the interrupt controller, and by the button that some machines have."""
    for _ in range(100):
        machine.bus.interrupt(0, mode=4)
        machine.monitor.execute("inject-nmi")
        time.sleep(0.002)


def on_registers(lab: Lab, target: Target, folder: Path, *, act: Act) -> Outcome:
    """The attack wants a program's register to be another afterwards, as after a system call that it never made."""
    with Machine(lab, watcher.watched(lab, target), folder, Setup(options=("-no-shutdown",))) as machine:
        watcher.await_it(machine)
        act(machine)
        return _register(watcher.ended(machine))


def other_register(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The honest case: with another value in it the same program says so."""

    def run() -> Outcome:
        changed = watcher.watched(lab, target, holds=21)
        with Machine(lab, changed, folder, Setup(options=("-no-shutdown",))) as machine:
            event = machine.monitor.event("SHUTDOWN")
            return _register(None if event is None else str(event["reason"]))

    return lab.once(f"another register {target.name}", run)


def _register(why: str | None) -> Outcome:
    if why is None:
        return Outcome(succeeded=False, guest="the register is what it was")
    if why == "guest-shutdown":
        return Outcome(succeeded=True, guest="the register is another")
    return Outcome(succeeded=False, guest=f"the kernel stopped: {why}")


def on_a_program(lab: Lab, target: Target, folder: Path, *, act: Act | None, line: str) -> Outcome:
    """The attack wants a bound program to come to another result. `line` of the kernel's count says that it arrived.

    `act` None: the honest case, which comes to the right one.
    """
    disk = disks.plain(lab)
    document = Document(root=disk.root, process=Process(argv=("sh", "-c", _SCRIPT), environment=disks.ENVIRONMENT))
    with Machine(lab, target, folder, Setup(disk=disk.data, document=document)) as machine:
        guest = Speaker(machine)
        guest.start(document)
        guest.until(b"up\n")
        if act is not None:
            act(machine)
        result = guest.rest()
    right = result.out.startswith(b"%d\n" % _COUNT) and result.exited == (0, 0, 0, 0)
    if act is None:
        return Outcome(succeeded=right, guest=f"its program came to {result.out[:20].split()[:1]}")
    if result.exited is None:
        return Outcome(succeeded=False, guest="the guest ended")
    if right and not any(word.endswith(line) and int(count) > 0 for word, count in _counts(result.out)):
        raise BuildError(f"nothing arrived: {result.out!r}")
    return Outcome(succeeded=not right, guest="its program goes on, to the right result" if right else repr(result.out))


def _counts(out: bytes) -> list[tuple[str, str]]:
    lines = [line.split() for line in out.decode(errors="replace").splitlines()]
    return [(words[0], words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()]


def attacks() -> Iterator[Attack]:
    """The rows."""
    honest = Honest(what="with another value the same program says so", attempt=other_register)
    for name, host, act in (
        ("system-call", "raises vector 0x80, at which kernels take a program's registers for a system call",
         system_calls),
        ("vectors-registers", "raises every vector from 16 on, those of exceptions among them", vectors),
    ):  # fmt: skip
        attempt = partial(on_registers, act=act)
        yield Attack(name=name, host=host, attempt=attempt, control=honest, parts=_KERNEL, reach=Reach.KERNEL)
    for name, host, act, line in (
        ("vectors", "raises every vector from 16 on while a bound program computes", vectors, "RES:"),
        ("nmi", "sends non-maskable interrupts while a bound program computes", nmis, "NMI:"),
    ):
        control = Honest(what="left alone", attempt=partial(on_a_program, act=None, line=line))
        attempt = partial(on_a_program, act=act, line=line)
        yield Attack(name=name, host=host, attempt=attempt, control=control, short=name == "nmi")
