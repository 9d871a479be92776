# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Loopback: a port for a server, and what stands between a server and its clients."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def to(port: int) -> Callable[[], socket.socket]:
    """What connects to a server."""
    return lambda: socket.create_connection(("127.0.0.1", port))


class Relay:
    """Hands on what comes to `listener`, a port of its own unless one is given, to what connect() gives, until closed.

    It counts bytes, `up` to the server and `down` from it, and how often it was cut.
    """

    CHUNK = 16 << 10

    def __init__(self, connect: Callable[[], socket.socket], *, listener: socket.socket | None = None) -> None:
        self.up, self.down, self.cuts = 0, 0, 0
        self._connect = connect
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        """Where it listens, if that is a port."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        _end(self._listener)
        self._listener.close()

    def cut(self) -> None:
        """Break the connections that are open; others may follow."""
        self.cuts += 1
        for one in tuple(self._open):
            _end(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = self._connect()
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for source, target, up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._copy, args=(source, target, up), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(self.CHUNK):
                passed += len(data)
                with self._lock:
                    self.up += len(data) if up else 0
                    self.down += 0 if up else len(data)
                self._passing(len(data), up=up, passed=passed)
                target.sendall(data)
        _end(source)
        _end(target)

    def _passing(self, length: int, *, up: bool, passed: int) -> None:
        """So many bytes are about to be handed on; `passed` with those of the connection before, in that direction."""


class Between(Relay):
    """To a port; calls `then`, or is cut, once: when so many bytes go up, or `down` to the client."""

    def __init__(self, port: int, *, after: int, then: Callable[[], object] | None = None, down: bool = False) -> None:
        self._after, self._then, self._counts_up = after, then or self.cut, not down
        # Nothing more of that direction passes while `then` runs.
        self._turn = threading.Lock()
        super().__init__(to(port))

    def _passing(self, length: int, *, up: bool, passed: int) -> None:  # noqa: ARG002 (those of all connections count)
        if up == self._counts_up:
            with self._turn:
                before, self._after = self._after, self._after - length
                if before > 0 >= self._after:
                    self._then()


class Slow(Relay):
    """To a port; after the first `free` bytes of a connection, so many bytes a second go either way."""

    CHUNK = 4096

    def __init__(self, port: int, *, rate: int, free: int = 0) -> None:
        self._rate, self._free = rate, free
        super().__init__(to(port))

    def _passing(self, length: int, *, up: bool, passed: int) -> None:  # noqa: ARG002 (either way)
        if passed > self._free:
            time.sleep(length / self._rate)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
