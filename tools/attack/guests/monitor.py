# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine protocol (QMP): a host looks at its guest, and does to it what a monitor can.

QEMU's docs/interop/qmp-spec.rst: one line of JSON for each message. Answers come in the order of the commands; events
come between them, and are kept until somebody asks for them.
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.pipeline.base.errors import BuildError

LIMIT = 300.0
"""Seconds to wait for QEMU before something is taken to be wrong; not an expectation."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PERIOD = 0.05  # seconds between two attempts to connect
_LONGEST = 16 << 20  # bytes of one message; the longest that QEMU has (query-qmp-schema) is a quarter of a MiB


class RefusedError(BuildError):
    """QEMU did not do what a command asks for; `reason` is its "class: description"."""

    def __init__(self, command: str, error: dict[str, Any]) -> None:
        self.reason = f"{error.get('class')}: {error.get('desc')}"
        super().__init__(f"QEMU refuses {command}: {self.reason}")


class GoneError(ConnectionError):
    """QEMU ended, or was never there."""


class Monitor:
    """A connection to the monitor of one QEMU; leaving the block closes it, which QEMU does not mind."""

    def __init__(self, connection: socket.socket, *, limit: float = LIMIT) -> None:
        self._socket = connection
        self._limit = limit
        self._buffer = bytearray()
        self._events: list[dict[str, Any]] = []
        greeting = self._message(self._deadline(None))
        if "QMP" not in greeting:
            raise GoneError(f"this is no QMP server: {str(greeting)[:200]}")
        self.execute("qmp_capabilities")

    @classmethod
    def connect(cls, path: Path, *, alive: Callable[[], bool] = lambda: True, wait: float = LIMIT) -> Self:
        """To `-qmp unix:PATH,server=on,wait=off`, as soon as QEMU listens, for which it has `wait` seconds.

        GoneError when it does not, or is not `alive` any more.
        """
        deadline = time.monotonic() + wait
        # The folder by its descriptor: a socket's path has at most 107 bytes (unix(7)).
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX)
        try:
            while True:
                try:
                    connection.connect(f"/proc/self/fd/{folder}/{path.name}")
                    return cls(connection)
                except (ConnectionRefusedError, FileNotFoundError):
                    if not alive() or time.monotonic() > deadline:
                        raise GoneError(f"nobody listens at {path}") from None
                    time.sleep(_PERIOD)
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    @property
    def pid(self) -> int:
        """QEMU itself, also where a wrapper was started in its place (SO_PEERCRED, socket(7))."""
        return int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")

    def execute(self, command: str, /, **arguments: object) -> Any:
        """A command and what it returns; RefusedError if QEMU refuses it, GoneError if it ends first."""
        line = json.dumps({"execute": command, "arguments": arguments})
        try:
            self._socket.sendall(line.encode() + b"\n")
        except OSError as error:
            raise GoneError(f"QEMU does not take {command}: {error.strerror}") from None
        deadline = self._deadline(None)
        while True:
            message = self._message(deadline)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise RefusedError(command, message["error"])
            self._events.append(message)

    def human(self, line: str) -> str:
        """A line of the monitor for people (QEMU, hmp-commands.hx), and what it prints."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def cpu_seconds(self) -> float:
        """Processor time that QEMU has used: what passes for the guest, however busy this machine is."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime, proc(5)

    def instruction_pointer(self) -> int:
        """The first CPU's. Stopped for that: the emulator keeps it current between blocks of code only."""
        self.execute("stop")
        text = self.human("info registers")
        self.execute("cont")
        found = re.search(r"\b[RE]IP=([0-9a-f]+)", text)
        assert found, text
        return int(found[1], 16)

    def memory(self, address: int, size: int) -> bytes:
        """As the CPU sees it; empty where nothing is mapped."""
        text = self.human(f"x /{size}xb {max(0, address):#x}")
        return bytes(int(byte, 16) for byte in re.findall(r"\b0x([0-9a-f]{2})\b", text))

    def status(self) -> str:
        """`running`, `paused`, `shutdown`, `suspended`, `guest-panicked` … (QEMU, qapi/run-state.json)."""
        return str(self.execute("query-status")["status"])

    def event(self, name: str, *, limit: float | None = None) -> dict[str, Any] | None:
        """The next event of that name and its data, also one that came before; None after `limit` seconds."""
        deadline = self._deadline(limit)
        while True:
            for place, message in enumerate(self._events):
                if message.get("event") == name:
                    del self._events[place]
                    return dict(message.get("data", {}))
            try:
                self._events.append(self._message(deadline))
            except TimeoutError:
                return None

    def drain(self) -> list[str]:
        """The names of all events that nobody took, oldest first; they are forgotten."""
        with contextlib.suppress(TimeoutError, GoneError):
            while True:
                self._events.append(self._message(time.monotonic()))
        names = [str(message.get("event")) for message in self._events]
        self._events.clear()
        return names

    def _deadline(self, limit: float | None) -> float:
        return time.monotonic() + (self._limit if limit is None else limit)

    def _message(self, deadline: float) -> dict[str, Any]:
        """The next message; TimeoutError at the deadline, with nothing lost."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LONGEST:
                raise GoneError("QEMU's message does not end")
            # Not zero: that would be a socket which never waits and says so in another way.
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                raise GoneError("QEMU ended")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message = json.loads(line)
        if not isinstance(message, dict):
            raise GoneError(f"QEMU says what no message is: {line[:200]!r}")
        return message
