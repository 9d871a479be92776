# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal here that a terminal in the guest is shown on."""

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator

_SIZE_MAX = 4096
"""Rows and columns that the protocol takes."""


class Terminal:
    """A terminal that the descriptor is; `keys`: what is typed goes to the guest, so it is raw while that runs."""

    def __init__(self, descriptor: int, *, keys: bool) -> None:
        self._descriptor = descriptor
        self._keys = keys

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, 0 for unknown."""
        try:
            columns, rows = os.get_terminal_size(self._descriptor)
        except OSError:  # it has gone
            return 0, 0
        return min(rows, _SIZE_MAX), min(columns, _SIZE_MAX)

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Every key goes to the guest, which echoes and interprets; however the block ends, it is as before."""
        if not self._keys:
            yield
            return
        before = termios.tcgetattr(self._descriptor)
        # Without this, a launcher that was put into the background meanwhile would be stopped and restore nothing.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            tty.setraw(self._descriptor, termios.TCSADRAIN)
            yield
        finally:
            with contextlib.suppress(termios.error):  # it has gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def here(*, keys: bool) -> Terminal | None:
    """The terminal of this process: its standard input or output; `keys`: the guest takes what is typed."""
    if keys and os.isatty(0):
        return Terminal(0, keys=True)
    found = next((descriptor for descriptor in (1, 0) if os.isatty(descriptor)), None)
    return None if found is None else Terminal(found, keys=False)
