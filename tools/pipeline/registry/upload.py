# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A blob into a registry: in one request, or in parts of which a broken one is sent again, not those before it.

    HEAD ── there, of that size ── done
     └── POST ─┬─ small: PUT ?digest=, all of it
               └─ large: PATCH … PATCH (after a break: GET says how far it came), PUT ?digest=

The registry compares the digest; what it says of sizes and ranges is not believed where it can be compared.
"""

import re
import urllib.parse
from collections.abc import Iterator

import requests

from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError
from tools.pipeline.registry.connection import Connection, Lost
from tools.pipeline.registry.oci import Content
from tools.pipeline.sources import transport

PART = 64 << 20
"""Bytes of one request: what is sent again at most when a connection breaks."""
_CHUNK = 256 << 10
_OCTETS = "application/octet-stream"


class Part:
    """`length` bytes of a content from `start` on, as the body of a request."""

    def __init__(self, content: Content, start: int, length: int) -> None:
        self._content, self._start, self._length = content, start, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        with self._content.open() as file:
            file.seek(self._start)
            left = self._length
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise BuildError("became shorter while it was pushed", where=str(self._content.path))
                left -= len(chunk)
                yield chunk


def push(connection: Connection, content: Content, *, part: int = PART) -> bool:
    """Bring the blob into the registry, unless it is there; whether it had to be sent. BuildError when refused."""

    def once() -> bool:
        # At each try: the answer that got lost may have been that all is well.
        if _there(connection, content):
            return False
        if content.descriptor.size > part:
            _Upload(connection, content, part).run()
        else:
            _finish(connection, content, _begin(connection)[0], Part(content, 0, content.descriptor.size))
        return True

    return connection.patiently(once)


def _there(connection: Connection, content: Content) -> bool:
    url = connection.url(f"blobs/{content.descriptor.digest}")
    with connection.request("HEAD", url, good=(200, 404)) as response:
        length = transport.number(response, "Content-Length")
        if response.status_code == 200 and length not in {None, content.descriptor.size}:
            what = f"has {content.descriptor.digest} with {length} bytes in place of {content.descriptor.size}"
            raise connection.error(what, hint="its storage is damaged, or it lies: push to another")
        return response.status_code == 200


def _begin(connection: Connection) -> tuple[str, int]:
    """Where an upload goes, and the least size of its parts."""
    with connection.request("POST", connection.url("blobs/uploads/"), good=(202,), body=lambda: b"") as response:
        return _location(connection, response), transport.number(response, "OCI-Chunk-Min-Length") or 0


def _location(connection: Connection, response: requests.Response) -> str:
    location = response.headers.get("Location")
    if not location:
        raise connection.error("does not say where the upload goes on")
    return urllib.parse.urljoin(response.url or "", location)


def _finish(connection: Connection, content: Content, location: str, body: Part | None) -> None:
    separator = "&" if urllib.parse.urlsplit(location).query else "?"
    url = f"{location}{separator}digest={urllib.parse.quote(content.descriptor.digest)}"
    headers = {"Content-Type": _OCTETS} if body else {}
    # requests would send an empty stream without a length.
    sent = body or b""
    with connection.request("PUT", url, good=(201,), headers=headers, body=lambda: sent) as response:
        given = response.headers.get("Docker-Content-Digest", content.descriptor.digest)
        if given != content.descriptor.digest:
            raise connection.error(f"took {content.descriptor.digest} for {given}", hint="it lies: push to another")


class _Upload:
    """One upload in parts."""

    def __init__(self, connection: Connection, content: Content, part: int) -> None:
        self._connection, self._content, self._part = connection, content, part
        self._location, self._done = "", 0

    def run(self) -> None:
        """All parts and the end; Lost when it must begin anew."""
        self._location, least = _begin(self._connection)
        self._part = max(self._part, least)
        breaks = 0
        while self._done < self._content.descriptor.size:
            before = self._done
            try:
                self._send()
            except Lost:
                breaks = 0 if self._done > before else breaks + 1
                if breaks >= self._connection.options.rounds:
                    raise
                ambient.sleep(self._connection.options.first_pause * breaks)
                self._ask_how_far()
        _finish(self._connection, self._content, self._location, None)

    def _send(self) -> None:
        length = min(self._part, self._content.descriptor.size - self._done)
        last = self._done + length - 1
        headers = {"Content-Type": _OCTETS, "Content-Range": f"{self._done}-{last}"}
        part = Part(self._content, self._done, length)
        with self._connection.request(
            "PATCH", self._location, good=(202,), headers=headers, body=lambda: part
        ) as response:
            if _end(response) not in {None, last}:
                what = f"says that it has {response.headers['Range'][:40]!r} after byte {last} was sent"
                raise self._connection.error(what, hint="it lies or loses data: push to another")
            self._location = _location(self._connection, response)
            self._done = last + 1

    def _ask_how_far(self) -> None:
        """Where the registry is; Lost when it has forgotten the upload."""
        try:
            with self._connection.request("GET", self._location, good=(204,)) as response:
                end = _end(response)
                location = response.headers.get("Location")
                if location:
                    self._location = _location(self._connection, response)
        except BuildError:
            # 404 after a break within a part (distribution 2.8): this blob begins anew.
            raise Lost("the connection broke within a part") from None
        # A registry that has nothing says 0-0, as one that has a byte: nothing is the safe reading.
        done = 0 if end in {None, 0} else (end or 0) + 1
        if done and not self._done <= done <= min(self._done + self._part, self._content.descriptor.size):
            raise Lost("the registry has lost track of the upload")
        self._done = done


def _end(response: requests.Response) -> int | None:
    """The last byte in `Range: 0-N`, or None where there is none."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d{1,15})", response.headers.get("Range", ""))
    return int(found[1]) if found else None
