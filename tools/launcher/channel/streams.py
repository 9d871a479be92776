# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher's own file descriptors in the event loop: standard streams and signals.

The standard streams are shared with whoever started the launcher, so their O_NONBLOCK flag is left alone:
a read or write happens only after poll() said that it would not block, in pieces that keep that promise.
"""

import contextlib
import errno
import os
import select
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from tools.launcher.base.errors import Interrupted

TERMINATING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
FORWARDED = (*TERMINATING, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Descriptors for a process's standard streams; `stdin` None: it has none."""

    stdin: int | None
    stdout: int
    stderr: int


STANDARD = Streams(stdin=0, stdout=1, stderr=2)
"""This process's own."""


class Sink:
    """Buffered writing to a descriptor. Never holds more than the window granted to the guest."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pending = bytearray()
        self.broken = False
        # Why writing failed, unless it was just that the reader left.
        self.error: str | None = None
        # After POLLOUT a pipe takes PIPE_BUF bytes without blocking; a file takes any number.
        self._piece = select.PIPE_BUF
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._piece = 1 << 18
        except OSError:
            self.broken = True

    def write_some(self) -> int:
        """Write one piece; returns how many bytes are done with. A reader that left sets `broken`."""
        if self.broken:
            done = len(self.pending)
            self.pending.clear()
            return done
        try:
            done = os.write(self.descriptor, self.pending[: self._piece])
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                self.error = error.strerror or str(error)
            self.broken = True
            return self.write_some()
        del self.pending[:done]
        return done


def read_piece(descriptor: int, size: int) -> bytes | None:
    """Up to `size` bytes after poll() reported the descriptor; None when there is nothing after all."""
    try:
        return os.read(descriptor, size)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


class Signals:
    """Catches signals; previous handlers come back at the end.

    As bytes on a pipe, for the event loop; before there is one (`early`) a terminating signal raises Interrupted
    wherever this process is, so that what it has begun is cleaned up.
    """

    def __init__(self) -> None:
        self.descriptor = -1
        self.early = True
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.descriptor, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stack.callback(os.close, write_end)
        self._stack.callback(os.close, self.descriptor)
        previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, previous)
        for number in (*FORWARDED, signal.SIGCHLD, signal.SIGWINCH):
            old = signal.getsignal(number)
            # What was ignored stays so: `nohup sev-launch …` must survive a hangup.
            if old is not signal.SIG_IGN:
                signal.signal(number, self._handle)
                self._stack.callback(signal.signal, number, old)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def take(self) -> Iterator[int]:
        """The signals that came, without SIGCHLD (which only wakes the loop)."""
        try:
            numbers = os.read(self.descriptor, 256)
        except BlockingIOError:
            return
        for number in numbers:
            if number != signal.SIGCHLD:
                yield number

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.early and number in TERMINATING:
            raise Interrupted(number)
