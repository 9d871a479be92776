# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One pinned file from a list of places: bounded tries, resumed, hashed on the way, taken only if right."""

import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources import partial, pypi, transport
from tools.pipeline.sources.bounded import SLOWEST
from tools.pipeline.sources.partial import Partial
from tools.pipeline.sources.pins import Pin, Wheel
from tools.pipeline.sources.transport import Broken, Limits, Refused

_CHUNK = 256 << 10
_PROGRESS = 1 << 20  # bytes; an attempt that got this much further does not count as a failed round


class Cancelled(Exception):  # noqa: N818 (not an error: another download failed, or Ctrl-C)
    """Somebody else's failure ends this download."""


class _Unresumed(Exception):  # noqa: N818 (an answer too)
    """The answer to a request with Range is neither the rest nor the whole."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a pin could not be had: each place and its last answer. `final`: asking again is pointless."""

    pin: Pin
    answers: tuple[tuple[str, str], ...]
    final: bool


class Meter:
    """What is done of the whole set; written by the workers, read by the progress line."""

    def __init__(self, pins: Iterable[Pin]) -> None:
        self._lock = threading.Lock()
        self._total = sum(pin.size for pin in pins)
        self._done: dict[str, int] = {}
        self._received = 0
        self._started = ambient.monotonic()

    def at(self, pin: Pin, size: int, *, received: int = 0) -> None:
        """The pin has `size` bytes now, `received` of them just arrived."""
        with self._lock:
            self._done[pin.sha256] = size
            self._received += received

    def __str__(self) -> str:
        with self._lock:
            done, received = sum(self._done.values()), self._received
        rate = received / max(ambient.monotonic() - self._started, 0.001)
        share = done / max(self._total, 1)
        bar = "#" * int(share * 20)
        left = f", {ui.duration((self._total - done) / rate)} left" if rate > 1 else ""
        return f"[{bar:<20}] {ui.size(done)} of {ui.size(self._total)}, {ui.size(int(rate))}/s{left}"


@dataclass(kw_only=True)
class Download:
    """One pin, until it is in the cache or every place has failed."""

    pin: Pin
    places: tuple[str, ...]
    cache: Cas
    limits: Limits
    stop: threading.Event
    meter: Meter

    def run(self) -> Failure | None:
        """None when the file is in the cache. A full disk is a BuildError; `stop` ends it by Cancelled."""
        with partial.opened(self.cache, self.pin, wait=self._pause) as part:
            if part is None:
                self.meter.at(self.pin, self.pin.size)
                return None
            self.meter.at(self.pin, part.size)
            return self._rounds(part)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Cancelled

    def _rounds(self, part: Partial) -> Failure | None:
        answers: dict[str, str] = {}
        refused: set[str] = set()
        pause = self.limits.first_pause
        furthest = part.size
        rounds_left = self.limits.rounds
        with transport.session(self.limits) as session:
            while rounds_left:
                rounds_left -= 1
                for place in self.places:
                    if place in refused:
                        continue
                    try:
                        self._attempt(part, place, session)
                    except Refused as answer:
                        answers[place] = str(answer)
                        refused.add(place)
                    except Broken as answer:
                        answers[place] = str(answer)
                    else:
                        part.commit()
                        return None
                if len(refused) == len(self.places):
                    return Failure(pin=self.pin, answers=tuple(answers.items()), final=True)
                if part.size >= furthest + _PROGRESS:
                    # Bounded by the pinned size, because only the furthest point ever reached counts.
                    furthest = part.size
                    rounds_left = self.limits.rounds
                    pause = self.limits.first_pause
                if rounds_left:
                    self._pause(pause)
                    pause = min(pause * 2, self.limits.longest_pause)
        return Failure(pin=self.pin, answers=tuple(answers.items()), final=False)

    def _attempt(self, part: Partial, place: str, session: requests.Session) -> None:
        """Continue the partial file from this place; returns when the bytes are right."""
        resumed = part.size > 0
        if not part.complete:
            self._transfer(part, place, session)
        if part.right:
            return
        part.restart()
        self.meter.at(self.pin, 0)
        if not resumed:
            raise Refused("wrong SHA-256")
        # The fault may lie in the bytes that were there before, perhaps from another place.
        self._transfer(part, place, session)
        if not part.right:
            part.restart()
            raise Refused("wrong SHA-256")

    def _transfer(self, part: Partial, place: str, session: requests.Session) -> None:
        path = transport.local_path(place)
        if path is not None:
            self._copy(part, path)
        elif isinstance(self.pin.origin, Wheel) and place == pypi.place(self.pin.origin):
            self._ask_pip(part, self.pin.origin)
        else:
            try:
                self._get(part, place, session)
            except _Unresumed:
                # Whatever such a server does with Range, it may well know how to send a file.
                part.restart()
                self._get(part, place, session)
        if not part.complete:
            raise Broken(f"the connection ended after {part.size} of {self.pin.size} bytes")

    def _ask_pip(self, part: Partial, wheel: Wheel) -> None:
        with pypi.scratch() as folder:
            try:
                path = pypi.download(wheel, folder, sha256=self.pin.sha256)
            except BuildError as error:
                # pip has tried again by itself.
                raise Refused(error.what) from None
            self._copy(part, path)

    def _copy(self, part: Partial, path: Path) -> None:
        part.restart()
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise Refused("is no file")
                if status.st_size != self.pin.size:
                    raise Refused(f"is {status.st_size} bytes long, the pin says {self.pin.size}")
                self._receive(part, iter(lambda: file.read(_CHUNK), b""))
        except OSError as error:
            raise Refused(error.strerror or "cannot be read") from None

    def _get(self, part: Partial, place: str, session: requests.Session) -> None:
        headers = {"Range": f"bytes={part.size}-"} if part.size else {}
        with transport.request(place, session, self.limits, headers=headers) as response:
            self._check_answer(part, response)
            raw = response.raw
            self._receive(part, _chunks(raw, lambda: self.pin.size - part.size))
            if part.complete and raw.read1(1):
                part.restart()
                raise Refused(f"is larger than the pinned {self.pin.size} bytes")

    def _check_answer(self, part: Partial, response: requests.Response) -> None:
        status, resumed = response.status_code, part.size > 0
        if status in {408, 425, 429} or status >= 500:
            raise Broken(f"{status} {response.reason}")
        if resumed and status == 206:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != part.size or found[3] not in {"*", str(self.pin.size)}:
                raise _Unresumed
        elif resumed and (status in {206, 416} or "Content-Range" in response.headers):
            raise _Unresumed
        elif status != 200:
            raise Refused(f"{status} {response.reason}")
        else:
            part.restart()
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused("sends a transfer encoding that was not asked for")
        length = transport.number(response, "Content-Length")
        if length is not None and length != self.pin.size - part.size:
            if resumed:
                raise _Unresumed
            raise Refused(f"is {length} bytes long, the pin says {self.pin.size}")

    def _receive(self, part: Partial, chunks: Iterator[bytes]) -> None:
        mark, since = ambient.monotonic(), 0
        self.meter.at(self.pin, part.size)
        for chunk in chunks:
            if self.stop.is_set():
                raise Cancelled
            part.append(chunk)
            self.meter.at(self.pin, part.size, received=len(chunk))
            since += len(chunk)
            if ambient.monotonic() - mark > self.limits.stall:
                if since < SLOWEST * self.limits.stall:
                    raise Broken(f"slower than {SLOWEST} bytes a second")
                mark, since = ambient.monotonic(), 0


def _chunks(raw: urllib3.response.BaseHTTPResponse, left: Callable[[], int]) -> Iterator[bytes]:
    """What arrives, as it arrives (read1 returns after one recv, so a trickle is noticed)."""
    while (want := left()) > 0:
        chunk = raw.read1(min(want, _CHUNK))
        if not chunk:
            return
        yield chunk
