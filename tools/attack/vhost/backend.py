# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Devices beside QEMU: each serves one connection, in a thread of its own, and ends with it."""

import os
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.attack.vhost.disk import Disk
from tools.attack.vhost.session import Session
from tools.pipeline.base.errors import BuildError

_JOIN = 10.0  # seconds that a device has to notice that it is to end
_TICKS = os.sysconf("SC_CLK_TCK")


class Backend:
    """Serves `disk` at the socket `path` for the length of a block."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self.disk = disk
        self._peer: int | None = None
        self._failure: Exception | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        # QEMU may be somebody else.
        self.path.chmod(0o777)
        self._listener.listen(1)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._listener, self._connection):
            if end is not None:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # nobody was at its other end
        self._thread.join(_JOIN)
        self._listener.close()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # QEMU never came
        self._connection = connection
        self._peer, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            Session(connection, self.disk).run()
        except Exception as failure:  # noqa: BLE001 (said by whoever started this thread)
            self._failure = failure

    def cpu_seconds(self) -> float:
        """Processor time that QEMU has used; 0 while there is none."""
        try:
            fields = Path(f"/proc/{self._peer}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime, proc(5)

    def check(self) -> None:
        """BuildError when the device itself has failed."""
        if self._connection is not None and self._connection.fileno() < 0:
            self._thread.join(_JOIN)  # the session is over, and about to say why
        if self._failure is not None:
            kind = type(self._failure).__name__
            raise BuildError(f"the device failed by itself: {kind}: {self._failure}") from self._failure
