# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where the guest's processor is, again and again, with the processor time that emulating it took in between.

QEMU is asked by its monitor while the guest runs on: the emulator's instruction pointer is kept current from one block
of translated code to the next (CF_PCREL, QEMU's accel/tcg), and an answer takes a tenth of a millisecond. Only twice is
the guest stopped: when the kernel first runs at its own addresses, while the firmware still lies in memory, and when
the agent first runs. Both are looked up in memory then.
"""

import contextlib
import mmap
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.power_on import located
from tests.bench.power_on.guest import Guest, Running
from tests.bench.power_on.located import Place
from tests.bench.power_on.programs import Programs
from tools.attack.guests.monitor import GoneError, Monitor
from tools.pipeline.base.errors import BuildError

STEADY = ("-icount", "shift=1,sleep=off")
"""Options of QEMU: the guest's clock follows its instructions, two nanoseconds each, so that counts do not depend on
how busy this machine is: else a slow start has more ticks."""
_PERIOD = 0.001  # seconds between two samples
_SOCKET, _MEMORY = "profile.sock", "profiled"
_IP = re.compile(r"\b[RE]IP=([0-9a-f]+) .* CPL=([0-3]) .* HLT=([01])")
_CS = re.compile(r"^CS =[0-9a-f]+ ([0-9a-f]+)", re.MULTILINE)
HIGH = 1 << 63
"""The kernel's own addresses begin here."""
_LONG = 1 << 32
_GRACE = 60.0  # seconds for QEMU to end
_CODE = 48  # bytes by which the agent is known


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`at`: seconds of the clock; `cpu`: seconds of processor time since the sample before; `user`: not the kernel."""

    at: float
    cpu: float
    address: int
    user: bool
    halted: bool


@dataclass(kw_only=True)
class Trail:
    """One start: its samples in order, and what lay where."""

    samples: list[Sample] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    seconds: float = 0.0
    """By the clock, from the first instruction to HELLO, without the time that the guest was stopped."""


def follow(guest: Guest, programs: Programs, *extra: str) -> Trail:
    """Start the guest and sample it until it is ready; then QEMU ends by itself, and writes what is left to write."""
    options = (
        "-object", f"memory-backend-memfd,id={_MEMORY},size={_size(guest)},share=on",
        "-machine", f"memory-backend={_MEMORY}", "-qmp", f"unix:{_SOCKET},server=on,wait=off", "-S",
    )  # fmt: skip
    (guest.folder / _SOCKET).unlink(missing_ok=True)
    with guest.started(*options, *extra) as running:
        with Monitor.connect(guest.folder / _SOCKET, alive=lambda: running.qemu.ended is None) as monitor:
            trail = _Follower(running, monitor, programs).trail
            with contextlib.suppress(GoneError):
                monitor.execute("quit")
        running.qemu.stop(grace=_GRACE)
        return trail


def _size(guest: Guest) -> str:
    return guest.argv[guest.argv.index("-m") + 1]


class _Follower:
    def __init__(self, running: Running, monitor: Monitor, programs: Programs) -> None:
        self._monitor, self._programs = monitor, programs
        self.trail = Trail()
        thread = monitor.execute("query-cpus-fast")[0]["thread-id"]
        self._schedstat = Path(f"/proc/{monitor.pid}/task/{thread}/schedstat")
        self._stopped = 0.0
        kernel = agent = False
        monitor.execute("cont")
        started, spent = time.perf_counter(), self._spent()
        while not running.ready(_PERIOD):
            text = monitor.human("info registers")
            found, segment, now = _IP.search(text), _CS.search(text), self._spent()
            if found is None or segment is None:
                raise BuildError("says no instruction pointer", where="QEMU's monitor")
            address = int(found[1], 16)
            # The base counts until the processor is in 64-bit mode, in which it is zero.
            address += int(segment[1], 16) if address < _LONG else 0
            sample = Sample(
                at=time.time(), cpu=now - spent, address=address, user=found[2] == "3", halted=found[3] == "1"
            )
            spent = now
            self.trail.samples.append(sample)
            if not kernel and sample.address >= HIGH:
                kernel = True
                self._stop(self._in_memory)
            elif not agent and sample.user:
                self._stop(self._agent)
                agent = any(place.program == "agent" for place in self.trail.places)
        self.trail.seconds = time.perf_counter() - started - self._stopped

    def _spent(self) -> float:
        """Seconds of processor time of the thread that is the guest's processor (proc(5), schedstat)."""
        return int(self._schedstat.read_text().split()[0]) / 1e9

    def _stop(self, look: Callable[[], list[Place]]) -> None:
        before = time.perf_counter()
        self._monitor.execute("stop")
        self.trail.places += look()
        self._monitor.execute("cont")
        self._stopped += time.perf_counter() - before

    def _in_memory(self) -> list[Place]:
        descriptor = os.open(self._memory(), os.O_RDONLY | os.O_CLOEXEC)
        try:
            extents = located.extents(descriptor)
            with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as memory:
                return [
                    *located.kernel(self._programs, memory, extents),
                    *located.modules(self._programs, memory, extents),
                ]
        finally:
            os.close(descriptor)

    def _memory(self) -> Path:
        """The guest's memory: an unnamed file that QEMU has open (memfd_create(2): its link says memfd:NAME)."""
        folder = Path(f"/proc/{self._monitor.pid}/fd")
        for path in sorted(folder.iterdir()):
            if str(path.readlink()).startswith("/memfd:") and path.stat().st_size >= located.LOW:
                return path
        raise BuildError("has no memory in a file", where="QEMU")

    def _agent(self) -> list[Place]:
        text = self._monitor.human("info registers")
        found = _IP.search(text)
        if found is None or found[2] != "3":  # in the kernel again; another sample will find it
            return []
        address = int(found[1], 16)
        return located.agent(self._programs, self._monitor.memory(address, _CODE), address)
