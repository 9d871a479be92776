# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on loopback that can misbehave, and pins for what it serves."""

import hashlib
import random
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tools.pipeline.sources.pins import Archive, Pin, PoolFile
from tools.pipeline.sources.transport import Limits

# Short pauses: the tests wait for events, the limits only bound them.
QUICK = Limits(jobs=3, rounds=3, first_pause=0.01, longest_pause=0.02, connect=5.0, stall=0.4)


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that do not repeat, the same at every run."""
    return random.Random(seed).randbytes(size)


def pin_for(data: bytes, *, name: str = "thing", archive: Archive = Archive.DEBIAN) -> Pin:
    """A pin for these bytes at pool/main/NAME.tar.xz."""
    return Pin(
        name=name,
        version="1.0-1",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        origin=PoolFile(archive=archive, path=f"pool/main/{name}.tar.xz"),
        lock="recipes/sources.lock",
    )


@dataclass(kw_only=True)
class Reply:
    """How one request is answered. `cut`: after so many body bytes, `then` what happens."""

    body: bytes = b""
    status: int = 200
    reason: str | None = None  # the status's own
    cut: int | None = None
    then: str = "close"  # close | reset | hang
    ranges: bool = True
    announce: int | None = -1  # -1: the truth; None: no Content-Length at all
    content_range: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Request:
    """What a client asked for, and how many body bytes it was sent."""

    method: str
    path: str
    range: str | None
    sent: int = 0


class Site:
    """The server: replies by path, used up in order; the last one stays."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.requests: list[Request] = []
        self.cut_reached = threading.Event()
        self.closing = threading.Event()
        site = self

        class Handler(_Handler):
            owner = site

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, pin: Pin, *replies: Reply, mirror: str = "/debian") -> None:
        """Answer for the pin below this mirror's path."""
        assert isinstance(pin.origin, PoolFile)
        self.replies[f"{mirror}/{pin.origin.path}"] = list(replies)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        pass

    def do_HEAD(self) -> None:
        self._answer(body_wanted=False)

    def do_GET(self) -> None:
        self._answer(body_wanted=True)

    def _answer(self, *, body_wanted: bool) -> None:
        request = Request(method=self.command, path=self.path, range=self.headers.get("Range"))
        self.owner.requests.append(request)
        waiting = self.owner.replies.get(self.path, [Reply(status=404)])
        reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        status, body, headers = reply.status, reply.body, dict(reply.headers)
        asked = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        if asked and reply.ranges and status == 200:
            start = int(asked[1])
            status, body = 206, reply.body[start:]
            headers["Content-Range"] = reply.content_range or f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}"
        self.send_response(status, reply.reason)
        if reply.announce is not None:
            headers.setdefault("Content-Length", str(len(body) if reply.announce < 0 else reply.announce))
        else:
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body_wanted:
            self._send(request, reply, body)

    def _send(self, request: Request, reply: Reply, body: bytes) -> None:
        part = body if reply.cut is None else body[: reply.cut]
        try:
            for start in range(0, len(part), 65536):
                piece = part[start : start + 65536]
                self.wfile.write(piece)
                request.sent += len(piece)
        except OSError:
            self.close_connection = True
            return
        if reply.cut is None:
            return
        self.close_connection = True
        self.owner.cut_reached.set()
        if reply.then == "hang":
            self.owner.closing.wait(30)
        elif reply.then == "reset":
            # SO_LINGER with time 0: close() sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.connection.close()
