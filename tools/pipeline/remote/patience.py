# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""How long a step waits for others: never for longer than it would take to run it.

Whatever a connection does, a name that is not resolved or a server that sends a byte a minute, whoever waits goes on
when the time is over. What was asked for is then left to itself, and what still comes of it is thrown away.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future
from typing import TypeVar

from tools.pipeline.base import ambient, children

UNKNOWN = 10.0
"""Seconds for an answer about a step whose time nobody knows."""
LEAST = 2.0
"""Seconds that any step costs when it runs: its tool tree is hashed again (toolchain/tool_tree.py)."""
_BEATS = 0.2  # seconds between two looks at whether the build is being stopped

T = TypeVar("T")


class TooLong(Exception):  # noqa: N818 (what happened)
    """It took longer than it may."""


class Ticket:
    """Held by who does the work: says whether anybody still waits for it."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def chunks(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes, as long as somebody waits; TooLong then."""
        for chunk in chunks:
            if self.over.is_set():
                raise TooLong
            yield chunk


def within(seconds: float, work: Callable[[Ticket], T]) -> T:
    """work() in a thread of its own, for so many seconds; TooLong when they are over. Its exceptions pass through."""
    ticket, given = Ticket(), Future[T]()

    def run() -> None:
        try:
            given.set_result(work(ticket))
        except BaseException as error:  # noqa: BLE001 (raised again by who waits)
            given.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    end = ambient.monotonic() + seconds
    try:
        while not futures.wait([given], min(max(end - ambient.monotonic(), 0.0), _BEATS)).done:
            children.check()
            if ambient.monotonic() >= end:
                raise TooLong
    finally:
        ticket.over.set()
    return given.result()


class Pace:
    """How fast bytes come, so that nobody waits for what cannot come in time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes, self._seconds = 0, 0.0

    def came(self, count: int, seconds: float) -> None:
        """So many bytes have come in so many seconds."""
        with self._lock:
            self._bytes += count
            self._seconds += seconds

    def hopeless(self, size: int, seconds: float) -> bool:
        """Whether so many bytes take longer than that, as far as is known. Nothing is known of the first megabyte."""
        with self._lock:
            if self._seconds < LEAST and self._bytes < 1 << 20:
                return False
            return size * self._seconds > seconds * max(self._bytes, 1)
