# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A further process in a container, and the relay that is it to the engine.

    exec ── fork ──▶ relay: setsid, terminal ── "exec", its standard streams ──▶ monitor ──▶ agent
      ◀── started, or why not ──┤                       ◀── exited N ── signals ──▶
      ▼ pid-file, end           └─ ends with the process's status

The monitor relays the bytes; the relay is there for its process number, signals and status.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.launcher.base.errors import LauncherError
from tools.runtime.life import console
from tools.runtime.life.folder import ContainerError, Folder
from tools.runtime.life.talk import PACKET_MAX, Connection

_FAILED, _KILLED = 255, 137
_LAST_SIGNAL = 64
_OWN = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`request`: what serving.process_of() reads. `console`: the socket that a terminal's master goes to."""

    folder: Folder
    request: Mapping[str, Any]
    console: str | None


class Exec:
    """A relay that has been forked; `pid` is its number."""

    def __init__(self, asked: Asked) -> None:
        self._link, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            status = _FAILED
            try:
                self._link.close()
                os.setsid()
                status = _relay(asked, child_end)
            finally:
                # Not sys.exit: the caller's own cleaning up is not the relay's to do.
                os._exit(status)
        child_end.close()

    def wait_started(self) -> None:
        """Until the process runs; ContainerError with why it does not."""
        answer = self._link.recv(PACKET_MAX).decode("utf-8", "replace")
        if answer != "ok":
            os.waitpid(self.pid, 0)
            raise ContainerError(answer.partition(" ")[2] or "the exec relay was killed")

    def wait(self) -> int:
        """Until it has ended: its status. Signals that come meanwhile are passed on."""
        for number in _forwarded():
            with contextlib.suppress(OSError):
                signal.signal(number, lambda got, _: os.kill(self.pid, got))
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code if code >= 0 else 128 - code


def _forwarded() -> list[int]:
    return [number for number in range(1, _LAST_SIGNAL + 1) if number not in _OWN and number not in {32, 33}]


def _relay(asked: Asked, creator: socket.socket) -> int:
    """The relay's whole life; returns its exit status."""
    try:
        wakeups = _catch_signals()
        if asked.console is not None:
            console.open_for(asked.console)
        connection = Connection(asked.folder)
        _send(connection, asked.request)
        connection.receive()
    except (LauncherError, OSError) as error:
        with contextlib.suppress(OSError):
            creator.send(f"no {error}".encode("utf-8", "backslashreplace")[:PACKET_MAX])
        return _FAILED
    if asked.console is None:
        # The monitor has them; whoever reads their other ends waits for the last copy.
        _let_go()
    with contextlib.suppress(OSError):
        creator.send(b"ok")
    creator.close()
    return _serve(connection, wakeups)


def _send(connection: Connection, request: Mapping[str, Any]) -> None:
    # As a file: arguments and environment may be larger than a packet.
    handle = os.memfd_create("exec")
    try:
        with os.fdopen(os.dup(handle), "wb") as stream:
            stream.write(json.dumps(request).encode())
        connection.send("exec", array.array("i", [handle, 0, 1, 2]).tobytes())
    finally:
        os.close(handle)


def _let_go() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in 0, 1, 2:
        os.dup2(null, standard)
    os.close(null)


def _catch_signals() -> int:
    """From now on signals are bytes that can be read from the descriptor."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in _forwarded():
        with contextlib.suppress(OSError):
            signal.signal(number, lambda *_: None)
    return read


def _serve(connection: Connection, wakeups: int) -> int:
    connection.socket.settimeout(None)
    poller = select.poll()
    for descriptor in (connection.socket.fileno(), wakeups):
        poller.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if wakeups in ready:
            for number in os.read(wakeups, 256):
                if number == signal.SIGWINCH:
                    connection.send("exec-resized")
                elif number not in _OWN:
                    connection.send(f"exec-signal {number}")
        if connection.socket.fileno() in ready:
            try:
                return int(connection.receive().partition(" ")[2])
            except ContainerError:
                return _KILLED
