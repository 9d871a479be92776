# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is sent beside the build: by a few threads, from a queue, until the build is over and a little longer."""

import queue
import threading
from collections.abc import Callable

from tools.pipeline.base import ambient, ui

THREADS = 2
WAIT = 120.0
"""Seconds that the end of a build waits for what is still on its way."""
_STEP = 0.1


class Uploads:
    """Jobs that run in a few threads; none of them raises. Threads start with the first job."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._left = 0
        self._threads = 0

    def add(self, job: Callable[[], None]) -> None:
        """Do it some time soon."""
        with self._lock:
            self._left += 1
            start = self._threads < min(THREADS, self._left)
            self._threads += start
        self._queue.put(job)
        if start:
            # What a process that ends has not sent yet is sent by the next one that takes the result.
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            try:
                job()
            finally:
                with self._lock:
                    self._left -= 1

    def end(self, *, wait: float = WAIT) -> int:
        """Wait until all is done, but no longer than so many seconds; how many jobs were left then."""
        if not self._left:
            return 0
        limit = ambient.monotonic() + wait
        with ui.working(f"sending results to {self._place}", detail=lambda: f"{self._left} left"):
            while self._left and ambient.monotonic() < limit:
                ambient.sleep(_STEP)
        return self._left
