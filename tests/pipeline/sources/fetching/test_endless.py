# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Mirrors whose answers have no end: in each place where there could be one, another mirror is asked."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.pipeline.sources.fetching.test_fetch import DATA, PIN, in_cache, run
from tests.pipeline.sources.loopback import Reply, Site
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.pins import Archive

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_ANSWERS = {
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /debian/x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0),
    "continue slowly": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
    "status slowly": (b"HTTP/1.1 200 ", b"O", 0.1),
    "trailer": (_CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n", 0),
    "chunk slowly": (_CHUNKED, b"0", 0.1),
}


class _Endless:
    """Answers each request with a beginning, and then the same again and again, after a pause in seconds."""

    def __init__(self, beginning: bytes, rest: bytes, pause: float) -> None:
        self._beginning, self._rest, self._pause = beginning, rest, pause
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self._server.getsockname()[1]}/debian"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._server.accept()[0],), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._beginning)
            many = 1 if self._pause else 1000
            while not self._over.wait(self._pause):
                connection.sendall(self._rest * many)

    def close(self) -> None:
        self._over.set()
        self._server.close()


@pytest.fixture(params=_ANSWERS)
def endless(request: pytest.FixtureRequest) -> Iterator[_Endless]:
    server = _Endless(*_ANSWERS[request.param])
    yield server
    server.close()


def test_the_next_mirror_is_asked(endless: _Endless, site: Site, cache: Cas) -> None:
    site.add(PIN, Reply(status=302, body=b"moved", headers={"Location": "/elsewhere"}), mirror="/debian")
    site.replies["/elsewhere"] = [Reply(body=DATA)]
    bases = (endless.base, f"{site.base}/debian")
    known = Mirrors(mirrors=tuple(Mirror(base=base, archive=Archive.DEBIAN) for base in bases))
    # In a thread: at worst it waits for ever.
    fetching = threading.Thread(target=run, args=([PIN], cache, lambda: known), daemon=True)
    fetching.start()
    fetching.join(30)
    assert not fetching.is_alive()
    assert in_cache(cache, DATA)
