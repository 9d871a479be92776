# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A user at a terminal, on which a program runs."""

import fcntl
import os
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

_COOKED = termios.ICANON | termios.ECHO | termios.ISIG
_LIMIT = 600.0  # seconds; a program that hangs must end the test, however slow the machine is


class Desk:
    """The program's standard streams are the terminal, which has 31 rows and 97 columns; its user sees `seen`."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        self.user, self.inner = os.openpty()
        self.resize(31, 97)
        self.before = termios.tcgetattr(self.inner)
        self.seen = b""
        self.process = subprocess.Popen(
            argv,
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            cwd=cwd,
            env=os.environ | dict(environment or {}),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  pytest has one thread
        )

    def close(self) -> None:
        """Ends the program."""
        self.process.kill()
        self.process.wait()
        for descriptor in (self.user, self.inner):
            os.close(descriptor)

    @property
    def raw(self) -> bool:
        """Whether every key goes to the program as it is."""
        local: int = termios.tcgetattr(self.inner)[3]
        return local & _COOKED == 0

    def resize(self, rows: int, columns: int) -> None:
        """The window is another size now."""
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def resize_the_shell(self, rows: int, columns: int) -> None:
        """The window is another size, and the shell at the other end of an engine's client knows.

        A client listens for changes only some time after its first look at the window, and never hears of one
        between (seen with docker and runc): so the window moves until the shell has it.
        """
        for _ in range(20):
            self.resize(rows, columns - 1)
            self.resize(rows, columns)
            at = len(self.seen)
            self.type(b"sleep 1; stty size; echo aft''er\n", b"after")
            if f"{rows} {columns}\r\n".encode() in self.seen[at:]:
                return
        raise AssertionError(self.seen)

    def until(self, text: bytes, at: int = 0) -> None:
        """Waits until the text is seen."""
        while text not in self.seen[at:]:
            assert select.select([self.user], [], [], _LIMIT)[0], self.seen
            self.seen += os.read(self.user, 4096)

    def type(self, keys: bytes, then: bytes) -> None:
        """Types, and waits for something to be shown behind that."""
        at = len(self.seen)
        os.write(self.user, keys)
        self.until(then, at)

    def end(self) -> int:
        """The program's exit status; the terminal is as it was before."""
        status = self.process.wait(_LIMIT)
        assert termios.tcgetattr(self.inner) == self.before
        return status
