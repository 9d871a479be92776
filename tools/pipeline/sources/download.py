# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One pinned file from a list of places: bounded tries, resumed, hashed on the way, taken only if right."""

import errno
import os
import re
import socket
import stat
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from tools.pipeline.base import ambient, ui
from tools.pipeline.engine.cas import Cas, Partial
from tools.pipeline.sources.pins import Pin

_CHUNK = 256 << 10
_SLOWEST = 1024  # bytes a second, averaged over the stall time; slower counts as stalled
_PROGRESS = 1 << 20  # bytes; an attempt that got this much further does not count as a failed round


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a fetch may do. Times are in seconds."""

    jobs: int = 6
    rounds: int = 5
    first_pause: float = 0.5
    longest_pause: float = 8.0
    connect: float = 10.0
    stall: float = 20.0


class Cancelled(Exception):  # noqa: N818 (not an error: another download failed, or Ctrl-C)
    """Somebody else's failure ends this download."""


class _Refused(Exception):  # noqa: N818 (these two are answers of a place, named for what they mean)
    """This place will not give the file, however often it is asked."""


class _Broken(Exception):  # noqa: N818
    """This attempt failed; a later one may not."""


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
        with self.cache.partial(self.pin, wait=self._pause) as part:
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
        with requests.Session() as session:
            session.max_redirects = 5
            while rounds_left:
                rounds_left -= 1
                for place in self.places:
                    if place in refused:
                        continue
                    try:
                        self._attempt(part, place, session)
                    except _Refused as answer:
                        answers[place] = str(answer)
                        refused.add(place)
                    except _Broken as answer:
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
            raise _Refused("wrong SHA-256")
        # The fault may lie in the bytes that were there before, perhaps from another place.
        self._transfer(part, place, session)
        if not part.right:
            part.restart()
            raise _Refused("wrong SHA-256")

    def _transfer(self, part: Partial, place: str, session: requests.Session) -> None:
        if urllib.parse.urlsplit(place).scheme == "file":
            self._copy(part, place)
        else:
            try:
                self._get(part, place, session)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise _translate(error) from None
        if not part.complete:
            raise _Broken(f"the connection ended after {part.size} of {self.pin.size} bytes")

    def _copy(self, part: Partial, place: str) -> None:
        path = _path_of(place)
        part.restart()
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise _Refused("is no file")
                if status.st_size != self.pin.size:
                    raise _Refused(f"is {status.st_size} bytes long, the pin says {self.pin.size}")
                self._receive(part, iter(lambda: file.read(_CHUNK), b""))
        except OSError as error:
            raise _Refused(error.strerror or "cannot be read") from None

    def _get(self, part: Partial, place: str, session: requests.Session) -> None:
        # identity: a compressed transfer would make Content-Length and Range mean something else.
        headers = {"Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
        timeout = (self.limits.connect, self.limits.stall)
        with session.get(place, headers=headers, stream=True, timeout=timeout) as response:
            self._check_answer(part, response)
            raw = response.raw
            self._receive(part, _chunks(raw, lambda: self.pin.size - part.size))
            if part.complete and raw.read1(1):
                part.restart()
                raise _Refused(f"is larger than the pinned {self.pin.size} bytes")

    def _check_answer(self, part: Partial, response: requests.Response) -> None:
        status = response.status_code
        if status == 206 and part.size:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != part.size or found[3] not in {"*", str(self.pin.size)}:
                part.restart()
                raise _Broken("answered with another range than asked for")
        elif status == 200:
            part.restart()
        elif status == 416:
            part.restart()
            raise _Broken("416 range not satisfiable")
        elif status in {408, 425, 429} or status >= 500:
            raise _Broken(f"{status} {response.reason}")
        else:
            raise _Refused(f"{status} {response.reason}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused("sends a transfer encoding that was not asked for")
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length) != self.pin.size - part.size:
            whole = int(length) + part.size
            part.restart()
            raise _Refused(f"is {whole} bytes long, the pin says {self.pin.size}")

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
                if since < _SLOWEST * self.limits.stall:
                    raise _Broken(f"slower than {_SLOWEST} bytes a second")
                mark, since = ambient.monotonic(), 0


def _chunks(raw: urllib3.response.BaseHTTPResponse, left: Callable[[], int]) -> Iterator[bytes]:
    """What arrives, as it arrives (read1 returns after one recv, so a trickle is noticed)."""
    while (want := left()) > 0:
        chunk = raw.read1(min(want, _CHUNK))
        if not chunk:
            return
        yield chunk


_FINAL: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((requests.TooManyRedirects,), "redirects without end"),
    (
        (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema),
        "redirects to something that is neither http: nor https:",
    ),
    ((requests.exceptions.InvalidURL,), "redirects to an invalid URL"),
    ((requests.exceptions.SSLError,), "its certificate was not accepted"),
)


def _translate(error: Exception) -> _Refused | _Broken:
    """A few words for what requests and urllib3 say in a paragraph."""
    for kinds, words in _FINAL:
        if isinstance(error, kinds):
            return _Refused(words)
    causes = list(_causes(error))
    # What the system said is the most exact; urllib3 counts a refused connection among its timeouts.
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return _Broken("host name not found")
        if isinstance(cause, OSError) and cause.errno in errno.errorcode:
            return _Broken(os.strerror(cause.errno or 0))
    if any(isinstance(cause, urllib3.exceptions.IncompleteRead) for cause in causes):
        return _Broken("the connection ended early")
    if any(isinstance(cause, (requests.Timeout, urllib3.exceptions.TimeoutError)) for cause in causes):
        return _Broken("stalled: no data within the time limit")
    return _Broken(type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps; requests and urllib3 keep it in arguments, `reason` or the chain."""
    pending: list[object] = [error]
    seen: list[int] = []
    while pending and len(seen) < 20:
        item = pending.pop(0)
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.append(id(item))
            yield item
            pending += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def size_at(place: str, session: requests.Session, limits: Limits) -> int | str:
    """The size in bytes that a place announces, without fetching the file; or why there is none."""
    if urllib.parse.urlsplit(place).scheme == "file":
        path = _path_of(place)
        return path.stat().st_size if path.is_file() else "no such file"
    try:
        with session.head(
            place,
            headers={"Accept-Encoding": "identity"},
            timeout=(limits.connect, limits.stall),
            allow_redirects=True,
        ) as response:
            length = response.headers.get("Content-Length", "")
            if response.status_code != 200 or not length.isdigit():
                return f"{response.status_code} {response.reason}"
            return int(length)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return str(_translate(error))


def _path_of(url: str) -> Path:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
