# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A first process of fourteen instructions in the initramfs's place: it watches one of its registers.

It needs nothing of the kernel, so it runs on any, and says what it sees by the one word that each kernel passes on:
when the register is another, it powers the machine off. While it is as it should be, the CPU is in its loop.
"""

import struct
import time

from tools.attack.base.lab import Lab
from tools.attack.base.model import UnjudgedError
from tools.attack.base.target import Target
from tools.attack.guests import initramfs
from tools.attack.guests.machine import Machine
from tools.pipeline.base.errors import BuildError

_BASE = 0x400000  # where its one page lies
_ENTRY = _BASE + 0x78  # behind the headers of file and segment
_SIGN = 20  # what the register holds: getpid for a call by `int 0x80`, whose answer would be another number
_LIMIT = 300.0  # seconds without any of its signs
_PERIOD = 0.05
_LOOP = 5  # bytes


def program(*, holds: int = _SIGN) -> bytes:
    """The file (ELF, one segment); `holds` is what it puts into the register before it looks."""
    code = (
        b"\xb8" + struct.pack("<I", holds)  # mov eax, holds
        + b"\x83\xf8" + bytes([_SIGN])  # 1: cmp eax, 20
        + b"\x74\xfb"  # je 1b
        + b"\xbf" + struct.pack("<I", 0xFEE1DEAD)  # reboot(2): both magic numbers, RB_POWER_OFF
        + b"\xbe" + struct.pack("<I", 672274793)
        + b"\xba" + struct.pack("<I", 0x4321FEDC)
        + b"\xb8" + struct.pack("<I", 169)
        + b"\x0f\x05\x0f\x0b"  # syscall, ud2
    )  # fmt: skip
    size = 0x78 + len(code)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _ENTRY, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000) + code


def watched(lab: Lab, target: Target, *, holds: int = _SIGN) -> Target:
    """The target with the watcher as its only program."""
    if target.config.initramfs is None:
        raise UnjudgedError("the kernel has its initramfs inside")
    name = f"{target.name}, a watcher of {holds}"
    archive = initramfs.with_file(b"", b"init", program(holds=holds))
    return lab.once(name, lambda: target.derive(name, lab.folder(name) / "out", initramfs=archive))


def seen(machine: Machine) -> bool:
    """Whether the CPU is in its loop now."""
    return 0 <= machine.monitor.instruction_pointer() - (_ENTRY + 5) < _LOOP


def await_it(machine: Machine) -> None:
    """Until it is seen; BuildError when it never is."""
    deadline = time.monotonic() + _LIMIT
    while not seen(machine):
        if not machine.alive() or time.monotonic() > deadline:
            raise BuildError(f"the watcher does not run: {machine.said or 'the kernel never came to it'}")
        time.sleep(_PERIOD)


def ended(machine: Machine, *, within: float = 1.0) -> str | None:
    """Why the machine stopped (QEMU, qapi/run-state.json: ShutdownCause); None where the watcher goes on.

    That it goes on is seen, after `within` seconds of QEMU's processor time. BuildError where the machine hangs.
    """
    deadline, until = time.monotonic() + _LIMIT, machine.monitor.cpu_seconds() + within
    while time.monotonic() < deadline:
        event = machine.monitor.event("SHUTDOWN", limit=_PERIOD)
        if event is not None:
            return str(event["reason"])
        if machine.monitor.cpu_seconds() > until and seen(machine):
            return None
    raise BuildError("the watcher is not seen any more, and the machine goes on")
