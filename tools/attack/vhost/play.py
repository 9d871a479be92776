# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One run of the launcher on a host whose disks are ours, watched from outside.

The workload reads a list and decides by it; while it does, it prints a dot every tenth of a second of its own time.
So a guest that waits for its disk is told from one whose processor goes round in circles, on a machine of any speed.
"""

import os
import select
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.attack.guests.monitor import Monitor
from tools.attack.vhost.backend import Backend
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.qemu import PROTECTED, Socket, stand_in
from tools.attack.vhost.root import Root, root
from tools.pipeline.base import ambient, children
from tools.pipeline.base.errors import BuildError

_LIMIT = 300.0  # seconds after which something else is wrong
_LOOK = 0.1  # seconds between two looks
_BURNT = 6.0  # seconds of QEMU's processor time after the lie without a dot: the guest is not alive
_GRACE = 10.0  # seconds that the launcher has to end after SIGTERM

# A program as many are: whoever is not found in the list is let in.
DECIDE = "if grep -q mallory /etc/denied; then echo DENIED; else echo ACCEPTED; fi"
RIGHT, WRONG = "DENIED", "ACCEPTED"
# In an encrypted guest no device sees other memory than the bounce buffers.
BOUNCED = "swiotlb=force"
READY = "ready"
WAIT = f"echo {READY}; read go"  # the workload waits until its host has done what it does


class Makes(Protocol):
    """A class of disks, or what makes one."""

    def __call__(self, content: memoryview, /, *, serial: bytes, bait: range) -> Disk:
        """The disk."""


@dataclass(frozen=True, kw_only=True)
class Lie:
    """A disk: what kind of one, its serial number, QEMU's options for it."""

    kind: Makes
    serial: str = "rootfs"
    options: str = PROTECTED


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a run. `status`: the launcher's; None where the host had to end it."""

    status: int | None
    output: str
    said: str
    told: tuple[int, ...]  # how often each disk lied
    alive: bool  # where the host had to end it: whether the workload was still running

    @property
    def became(self) -> str:
        """What the guest did, in a few words."""
        answer = " ".join(self.output.split()) or "no output"
        if self.status is None:
            return f"{answer}; the read never ends, the guest lives" if self.alive else f"{answer}; it hangs for good"
        if self.status == 125:
            return f"{answer}; the guest ended"
        return answer if self.status == 0 else f"{answer}; status {self.status}"


@dataclass(frozen=True, kw_only=True)
class Play:
    """What is played. The first disk carries the root; `verity`: its hash is measured."""

    lies: Sequence[Lie]
    verity: bool = True
    script: str = DECIDE
    append: str = BOUNCED
    options: Sequence[str] = ()  # of the launcher
    more: Sequence[str] = ()  # of QEMU
    end_stuck: bool = True  # the host ends a run that comes to nothing after a disk has lied …
    deadly: bool = False  # … or after what it does during it
    beats: int = 25  # dots after that: the guest is alive, and what it asked for does not come
    during: Callable[[Monitor], None] | None = None  # done by the host when the workload prints READY
    qemu: Path | None = None  # in the pinned one's place …
    lied: Callable[[], int] = lambda: 0  # … and how often it has lied


def beating(script: str) -> str:
    """The script beside a heart."""
    # A process in the background has no standard input unless it is given one.
    return f"exec 3<&0; ({script}) <&3 & while kill -0 $! 2>/dev/null; do echo .; sleep 0.1; done"


def play(lab: Lab, target: Target, folder: Path, what: Play) -> Seen:
    """Run; BuildError where nothing can be said."""
    image = root(lab)
    with ExitStack() as stack:
        # A socket's path has at most 107 bytes, and a row's folder may have more.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sev-vhost-")))
        sockets.chmod(0o777)  # QEMU may be somebody else, and makes its monitor's socket there
        backends = []
        for number, lie in enumerate(what.lies):
            disk = lie.kind(image.content, serial=lie.serial.encode(), bait=image.bait)
            backends.append(stack.enter_context(Backend(sockets / str(number), disk)))
        disks = [
            Socket(path=backend.path, options=lie.options) for backend, lie in zip(backends, what.lies, strict=True)
        ]
        monitor = sockets / "qmp"
        more = [*what.more, "-qmp", f"unix:{monitor},server=on,wait=off"]
        qemu = stand_in(folder / "qemu", what.qemu or lab.qemu, disks=disks, more=more)
        seen = _run(_argv(target, qemu, image, what), backends, what, monitor)
        for backend in backends:
            backend.check()
    return seen


def _argv(target: Target, qemu: Path, image: Root, what: Play) -> list[str]:
    # fmt: off
    argv = [
        str(target.launcher), "run", "--unprotected", "--accel", "tcg", "--qemu", str(qemu),
        "--unbound", "--rootfs", str(image.image), *what.options,
    ]
    # fmt: on
    if what.append:
        argv += ["--append", what.append]
    if what.verity:
        argv += ["--verity", image.root_hash]
    return [*argv, "--", "sh", "-c", beating(what.script)]


def _run(argv: list[str], backends: list[Backend], what: Play, monitor: Path) -> Seen:
    with tempfile.TemporaryFile() as errors:
        pipe = subprocess.PIPE
        with children.running(argv, grace=_GRACE, stdin=pipe, stdout=pipe, stderr=errors) as launcher:
            watch = _Watch(launcher, backends, what, monitor)
            watch.run()
            if not watch.ended:
                launcher.terminate()
                try:
                    launcher.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    launcher.kill()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    lines = watch.output.decode(errors="replace").splitlines()
    return Seen(
        status=launcher.returncode if watch.ended else None,
        output="\n".join(line for line in lines if line != "."),
        said=said,
        told=tuple(backend.disk.lies for backend in backends),
        alive=watch.alive,
    )


class _Watch:
    """Sees a running launcher to its end, or to where nothing more is to come."""

    def __init__(self, launcher: "subprocess.Popen[bytes]", backends: list[Backend], what: Play, path: Path) -> None:
        self.output = b""
        self.ended = False
        self.alive = False  # where it has not ended: whether the workload still runs
        self._launcher = launcher
        self._backends = backends
        self._what = what
        self._path = path  # of QEMU's monitor
        self._monitor: Monitor | None = None
        self._since: int | None = None  # length of the output when the lie was told
        self._burnt = 0.0  # QEMU's processor time at the last sign of life

    def run(self) -> None:
        """BuildError where nothing can be said."""
        deadline = ambient.monotonic() + _LIMIT
        try:
            while not self._over():
                if ambient.monotonic() > deadline:
                    raise BuildError(f"no end, and no sign of one, within {_LIMIT:g} s: {self.output[-80:]!r}")
        finally:
            if self._monitor is not None:
                self._monitor.close()

    def _over(self) -> bool:
        assert self._launcher.stdout is not None
        ready, _, _ = select.select([self._launcher.stdout], [], [], _LOOK)
        if ready:
            part = os.read(self._launcher.stdout.fileno(), 1 << 16)
            if not part:
                self._launcher.wait(_LIMIT)
                self.ended = True
                return True
            self.output += part
            self._burnt = self._used()
        if self._monitor is None and self._what.during is not None and READY.encode() in self.output:
            self._monitor = Monitor.connect(self._path)
            self._what.during(self._monitor)
            if WAIT in self._what.script:
                assert self._launcher.stdin is not None
                self._launcher.stdin.write(b"go\n")
                self._launcher.stdin.flush()
        return self._told() and self._stuck()

    def _told(self) -> bool:
        if any(backend.disk.lies for backend in self._backends) or self._what.lied():
            return self._what.end_stuck
        return self._what.deadly and self._monitor is not None

    def _stuck(self) -> bool:
        if self._since is None:
            self._since, self._burnt = len(self.output), self._used()
        self.alive = self.output[self._since :].count(b".\n") >= self._what.beats
        return self.alive or self._used() - self._burnt > _BURNT

    def _used(self) -> float:
        if self._backends:
            return self._backends[0].cpu_seconds()
        if self._monitor is None and self._what.qemu is not None:
            self._monitor = Monitor.connect(self._path)
        try:
            return self._monitor.cpu_seconds() if self._monitor is not None else 0.0
        except FileNotFoundError:
            return self._burnt  # QEMU has ended
