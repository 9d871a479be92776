# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One budget of jobs for all steps that run side by side: GNU make's job server, shared by their sandboxes.

A step takes one token to run at all. A program that takes part (make, cargo) takes further ones from the same
fifo while there are any, so that all steps together never run more jobs than there are CPUs. GNU make manual,
"Sharing Job Slots with GNU make", POSIX jobserver; a fifo since make 4.4.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.pipeline.sandbox import sandbox

INSIDE = "/tmp/jobs"  # noqa: S108 (the sandbox's own /tmp)
_TOKEN = b"+"


class Jobs:
    """The tokens: `total` of them while no step runs."""

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self._lock = threading.Lock()
        self._running = 0
        self._fifo: Path | None = None
        self._descriptor = -1

    @contextmanager
    def slot(self, folder: Path) -> Iterator[None]:
        """Hold one token; `folder` is a private folder in which the first caller makes the fifo."""
        with self._lock:
            if self._running == 0:
                self._reset(folder)
            self._running += 1
        try:
            # A blocking read queues up; a reader that polled would find the tokens gone to a busy make each time.
            os.read(self._descriptor, 1)
            try:
                yield
            finally:
                os.write(self._descriptor, _TOKEN)
        finally:
            with self._lock:
                self._running -= 1

    def mount(self) -> sandbox.Mount:
        """The fifo, for a step that takes part; only inside of slot()."""
        assert self._fifo is not None
        return sandbox.Mount(host=self._fifo, inside=INSIDE, writable=True)

    def environment(self) -> dict[str, str]:
        """What tells make and cargo of it. No part of a key: the number of jobs must not change a byte."""
        return {"MAKEFLAGS": f" -j{self.total} --jobserver-auth=fifo:{INSIDE}"}

    def _reset(self, folder: Path) -> None:
        """A new fifo with all tokens: a step that was killed took those that it held with it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._fifo = folder / "jobs"
        self._fifo.unlink(missing_ok=True)
        os.mkfifo(self._fifo)
        # A step's uid outside may be another; the folder is private.
        self._fifo.chmod(0o666)
        self._descriptor = os.open(self._fifo, os.O_RDWR | os.O_CLOEXEC)
        os.write(self._descriptor, _TOKEN * self.total)
