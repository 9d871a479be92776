# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The engine's log: lines as runc writes them, which docker, containerd and podman read.

Imports nothing that is slow: json and time are needed only when there is something to say.
"""

import os

from tools.sev.errors import printable

NAME = "sev-runtime"


class EngineLog:
    """`path` None: nobody gave a --log. Errors also go to stderr, as runc's do."""

    def __init__(self, path: str | None = None, *, as_json: bool = False) -> None:
        self.path = path
        self._as_json = as_json

    def error(self, text: str) -> None:
        """Why a command failed."""
        text = printable(text)
        self._write("error", text)
        _stderr(f"{NAME}: {text}\n")

    def warning(self, text: str) -> None:
        """What whoever looks after the host must be able to find; never on the container's standard error."""
        text = printable(text)
        self._write("warning", text)
        _syslog(4, text)

    def note(self, text: str) -> None:
        """What may help to understand a failure."""
        self._write("info", text)

    def _write(self, level: str, text: str) -> None:
        if self.path is None:
            return
        import json  # noqa: PLC0415  start-up
        import time  # noqa: PLC0415  start-up

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._as_json:
            line = json.dumps({"level": level, "msg": text, "time": now})
        else:
            line = f'time="{now}" level={level} msg={json.dumps(text)}'
        try:
            log = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        try:
            os.write(log, line.encode() + b"\n")
        except OSError:
            return
        finally:
            os.close(log)


def _stderr(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        return


def _syslog(severity: int, text: str) -> None:
    """A line to the host's log where there is one (RFC 3164, facility daemon): podman hands over no --log."""
    import socket  # noqa: PLC0415  start-up

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        try:
            log.setblocking(False)
            log.connect("/dev/log")
            log.send(f"<{3 << 3 | severity}>{NAME}[{os.getpid()}]: {text}".encode("utf-8", "replace")[:8192])
        except OSError:
            return
