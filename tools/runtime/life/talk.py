# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""How the other commands ask a container's monitor: one packet there, one or more back.

A request is a verb, and what belongs to it behind a blank; descriptors may come with it. An answer is `ok`, `no`, or
`over` (no, and the monitor ends now), and words behind a blank. Imports nothing that is slow: `kill` uses it.
"""

import _socket
import os

from tools.runtime.life.folder import SOCKET, ContainerError, Folder

PACKET_MAX = 1 << 16
PATIENCE = 120.0
"""Seconds that an answer may take."""


class OverError(ContainerError):
    """The answer was no, and the container ends by it."""


class Connection:
    """A connection to the monitor of a container; ContainerError when there is none."""

    def __init__(self, folder: Folder) -> None:
        self._name = folder.name
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        try:
            # By way of a descriptor: a socket's own path may have no more than 107 bytes.
            handle = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.socket.connect(f"/proc/self/fd/{handle}/{SOCKET}")
            finally:
                os.close(handle)
        except OSError:
            self.socket.close()
            folder.require()
            raise ContainerError(f"is {folder.status()}", where=folder.name) from None

    def send(self, request: str, descriptors: bytes = b"") -> None:
        """`descriptors` as an array of C ints."""
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)] if descriptors else []
        try:
            self.socket.sendmsg([request.encode()], ancillary)
        except OSError as error:
            raise ContainerError(f"its monitor cannot be asked: {error.strerror}", where=self._name) from None

    def receive(self) -> str:
        """The words of the next answer; ContainerError with those of a refusal."""
        try:
            answer = self.socket.recv(PACKET_MAX).decode()
        except OSError as error:
            what = error.strerror or f"no answer within {PATIENCE:g} s"
            raise ContainerError(f"its monitor does not answer: {what}", where=self._name) from None
        verdict, _, words = answer.partition(" ")
        if verdict == "ok":
            return words
        if verdict == "over":
            raise OverError(words)
        raise ContainerError(words or "its monitor has ended", where=None if words else self._name)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def ask(folder: Folder, request: str) -> str:
    """Ask once; the words of the answer, ContainerError with those of a refusal."""
    connection = Connection(folder)
    try:
        connection.send(request)
        return connection.receive()
    finally:
        connection.close()
