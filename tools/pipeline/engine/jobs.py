# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One budget of jobs for all steps that run side by side: GNU make's job server, shared by their sandboxes.

A step takes one token to run at all. A program that takes part (make, cargo) takes further ones from the same
fifo while there are any, so that all steps together never run more jobs than there are CPUs. GNU make manual,
"Sharing Job Slots with GNU make", POSIX jobserver; a fifo since make 4.4.

A step may do with the fifo what it likes, or be killed with tokens in its hands: no other waits longer than it runs,
and once none runs, the tokens are counted anew.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.sandbox import sandbox

INSIDE = "/tmp/jobs"  # noqa: S108 (the sandbox's own /tmp)
_TOKEN = b"+"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Jobs:
    """The tokens: `total` of them while no step runs."""

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._running = 0
        self._fifo: Path | None = None
        self._wait, self._look = -1, -1  # two descriptors of it: reading from the second never waits

    @contextmanager
    def slot(self, folder: Path) -> Iterator[None]:
        """Hold one token; `folder` is a private folder in which the first caller makes the fifo."""
        if not self._take(folder, wait=False):
            with ui.working("waiting for a CPU"):
                self._take(folder, wait=True)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                # Not if it is full: then the next one finds a token without this one.
                with suppress(BlockingIOError):
                    os.write(self._look, _TOKEN)

    def _take(self, folder: Path, *, wait: bool) -> bool:
        """Take one token; without waiting, only if there is one and nobody waits for it."""
        # One waits for a token, the others for him: whoever has one, but for him, is counted as running.
        if not self._turn.acquire(blocking=wait):
            return False
        try:
            if self._fifo is None:
                self._fifo = self._make(folder)
            # A blocking read queues up; a reader that polled would find the tokens gone to a busy make each time.
            os.read(self._wait if wait else self._look, 1)
        except BlockingIOError:
            return False
        else:
            with self._lock:
                self._running += 1
                if self._running == 1:
                    self._refill(self.total - 1)
            return True
        finally:
            self._turn.release()

    def mount(self) -> sandbox.Mount:
        """The fifo, for a step that takes part; only inside of slot()."""
        assert self._fifo is not None
        return sandbox.Mount(host=self._fifo, inside=INSIDE, writable=True)

    def environment(self) -> dict[str, str]:
        """What tells make and cargo of it. No part of a key: the number of jobs must not change a byte."""
        return {"MAKEFLAGS": f" -j{self.total} --jobserver-auth=fifo:{INSIDE}"}

    def _refill(self, count: int) -> None:
        """So many tokens, however many there were."""
        with suppress(BlockingIOError):
            while os.read(self._look, 1 << 16):
                pass
        os.write(self._look, _TOKEN * count)

    def _make(self, folder: Path) -> Path:
        """A fifo of this process's own; those of processes that have ended go."""
        guard = files.open_lock(folder / ".lock")
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            for other in folder.glob("jobs-*"):
                descriptor = os.open(other, _OPEN | os.O_NONBLOCK)
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    other.unlink()
                os.close(descriptor)
            fifo = folder / f"jobs-{ambient.random_bytes(8).hex()}"
            os.mkfifo(fifo)
            # A step's uid outside may be another; the folder is private.
            fifo.chmod(0o666)
            self._wait, self._look = os.open(fifo, _OPEN), os.open(fifo, _OPEN | os.O_NONBLOCK)
            fcntl.flock(self._wait, fcntl.LOCK_EX)
        finally:
            os.close(guard)
        os.write(self._look, _TOKEN * self.total)
        return fifo
