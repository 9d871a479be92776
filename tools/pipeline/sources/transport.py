# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP as this program uses it: one request, through which proxy, and each failure in a few words."""

import errno
import hashlib
import os
import re
import socket
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3

from tools.pipeline.base import ambient, files
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources.bounded import Adapter
from tools.pipeline.sources.wanted import MAX_SIZE, Promise

_CHUNK = 256 << 10
_REDIRECTS = 5
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a fetch may do. Times are in seconds."""

    jobs: int = 6
    rounds: int = 5
    first_pause: float = 0.5
    longest_pause: float = 8.0
    connect: float = 10.0
    stall: float = 20.0


class Refused(Exception):  # noqa: N818 (these two are answers of a place, named for what they mean)
    """This place will not give the file, however often it is asked."""


class Absent(Refused):
    """This place says itself that it does not have the file; others that refuse may have it."""


class Broken(Exception):  # noqa: N818
    """This attempt failed; a later one may not."""


def session(limits: Limits) -> requests.Session:
    """For the requests of one file."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, Adapter(limits.stall))
    return made


@contextmanager
def request(
    place: str,
    session: requests.Session,
    limits: Limits,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """Ask a place; Refused or Broken, in a few words, for whatever goes wrong until the answer is read."""
    # identity: a compressed transfer would make Content-Length and Range mean something else.
    wanted = {"Accept-Encoding": "identity", **(headers or {})}
    timeout = (limits.connect, limits.stall)
    try:
        try:
            response = _follow(session, method, place, headers=wanted, timeout=timeout)
        except ValueError as error:
            # urllib's and idna's complaints about a URL, which requests does not translate when a redirect has it.
            raise error if isinstance(error, requests.RequestException) else requests.exceptions.InvalidURL from None
        with response:
            yield response
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _translate(error, place) from None


def _follow(session: requests.Session, method: str, place: str, **options: Any) -> requests.Response:
    """The answer at the end of the redirects. By ourselves: requests reads a redirect's body, which may have no end."""
    for _ in range(_REDIRECTS + 1):
        response = session.request(method, place, stream=True, allow_redirects=False, **options)
        target = session.get_redirect_target(response)
        if target is None:
            return response
        response.close()
        place = urllib.parse.urljoin(place, target)
    raise requests.TooManyRedirects


def check_proxies(places: Iterable[str]) -> None:
    """Raise UserError when the environment names a proxy for one of the places that cannot be used."""
    bases = {urllib.parse.urljoin(place, "/") for place in places if place.startswith(("http:", "https:"))}
    for name, value in sorted({_proxy(base) for base in bases}):
        try:
            parts = urllib.parse.urlsplit(value if "://" in value else f"http://{value}")
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if value and not good:
            hint = "supported are http://HOST:PORT and https://HOST:PORT; no_proxy lists hosts that need none"
            raise UserError(f"{value!r} is no proxy that can be used", where=name, hint=hint)


def _proxy(place: str) -> tuple[str, str]:
    """The variable that sets a proxy for this place, and the proxy; empty when none does."""
    proxies = requests.utils.get_environ_proxies(place, no_proxy=None)
    value = requests.utils.select_proxy(place, proxies) or ""
    scheme = urllib.parse.urlsplit(place).scheme
    names = [name for stem in (scheme, "all") for name in (f"{stem}_proxy", f"{stem}_proxy".upper())]
    set_ = ambient.host_environment(*names)
    return next((name for name in names if set_.get(name) == value), "proxy"), value


_FINAL: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((requests.TooManyRedirects,), "redirects without end"),
    (
        (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema),
        "redirects to something that is neither http: nor https:",
    ),
    ((requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError), "redirects to an invalid URL"),
    ((requests.exceptions.SSLError,), "its certificate was not accepted"),
)


def _translate(error: Exception, place: str) -> Refused | Broken:
    """A few words for what requests and urllib3 say in a paragraph."""
    name, value = _proxy(place)
    for kinds, words in _FINAL:
        if isinstance(error, kinds):
            return Refused(words)
    words = describe(error)
    return Broken(f"{words} (through {name}={value})" if value else words)


def describe(error: Exception) -> str:
    """A few words for what went wrong with a connection."""
    causes = list(_causes(error))
    # What the system said is the most exact; urllib3 counts a refused connection among its timeouts.
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "host name not found"
        if isinstance(cause, OSError) and cause.errno in errno.errorcode:
            return os.strerror(cause.errno or 0)
        if isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed: "):
            # http.client's words for a proxy that refuses CONNECT.
            return f"the proxy refused: {str(cause).removeprefix('Tunnel connection failed: ').strip()}"
    if any(isinstance(cause, urllib3.exceptions.IncompleteRead) for cause in causes):
        return "the connection ended early"
    if any(isinstance(cause, (requests.Timeout, urllib3.exceptions.TimeoutError)) for cause in causes):
        return "stalled: no data within the time limit"
    return type(error).__name__


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


def size_at(place: str, session: requests.Session, limits: Limits) -> int:
    """The size in bytes that a place announces, without fetching the file.

    Absent when the place has no such file, Refused or Broken when it does not say.
    """
    path = local_path(place)
    if path is not None:
        return _local_size(path)
    with request(place, session, limits, method="HEAD") as response:
        length = number(response, "Content-Length")
        if response.status_code in {404, 410}:
            raise Absent(f"{response.status_code} {response.reason}")
        if response.status_code != 200:
            # It may want a password, know no HEAD, or be a proxy: none of that is about the file.
            raise Broken(f"{response.status_code} {response.reason}")
        if length is None or "Content-Encoding" in response.headers:
            raise Broken("does not say how long the file is")
        return length


def number(response: requests.Response, header: str) -> int | None:
    """A whole number in a header of an answer; None where there is none, or none that a file could have.

    "²" is a digit to Python and no number, and of more than 4,300 digits it makes none.
    """
    text = response.headers.get(header, "")
    return int(text) if _NUMBER.fullmatch(text) else None


def _local_size(path: Path) -> int:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Absent("no such file") from None
    except OSError as error:
        raise Broken(error.strerror or "cannot be read") from None
    if not stat.S_ISREG(status.st_mode):
        raise Broken("is no file")
    return status.st_size


def measure(place: str, session: requests.Session, limits: Limits) -> Promise:
    """Size and SHA-256 of what a place has, keeping nothing; Refused or Broken when it has none."""
    path = local_path(place)
    if path is not None:
        try:
            return Promise(sha256=files.of_file(path), size=path.stat().st_size)
        except OSError as error:
            raise Refused(error.strerror or "cannot be read") from None
    digest, size = hashlib.sha256(), 0
    with request(place, session, limits) as response:
        if response.status_code != 200:
            raise Refused(f"{response.status_code} {response.reason}")
        while size <= MAX_SIZE and (chunk := response.raw.read1(_CHUNK)):
            digest.update(chunk)
            size += len(chunk)
        announced = number(response, "Content-Length")
    if size > MAX_SIZE:
        raise Refused(f"is larger than {MAX_SIZE} bytes")
    if announced is not None and announced != size:
        raise Broken(f"the connection ended after {size} of {announced} bytes")
    return Promise(sha256=digest.hexdigest(), size=size)


def local_path(place: str) -> Path | None:
    """The path of a file: URL; None for every other place."""
    parts = urllib.parse.urlsplit(place)
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme == "file" else None
