# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""How a failed program in the sandbox is told: the end of its log, and one line."""

import errno
import os
import signal
from pathlib import Path

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sandbox.sandbox import Outcome
from tools.sev.errors import printable

_TAIL = 20  # lines of a failed program's log that are shown
_WIDTH = 400  # characters of a line that are shown
_READ = 64 << 10  # bytes of the log's end in which they are looked for
# As it is told of a child, and of a child's child by bubblewrap or a shell.
_KILLED = {status for number in (signal.SIGKILL, signal.SIGBUS) for status in (-number, 128 + number)}
_SIGNS = (os.strerror(errno.ENOSPC), "Killed", "Bus error")  # as a shell, make and gcc say it
_MISTAKE = 2  # exit status of a program that says that its input is at fault


def check(outcome: Outcome, *, title: str, mistakes: bool = False) -> None:
    """Show the end of the log and raise BuildError unless the program ended well.

    With `mistakes`, exit status 2 is a UserError, told by the program's last line.
    """
    status = outcome.status
    if status == 0:
        return
    lines = _tail(outcome.log)
    if mistakes and status == _MISTAKE and lines:
        raise UserError(lines[-1])
    for text in lines:
        # A program's colours may go, its titles, answers to the terminal and the like must.
        ui.line(ui.paint(f"   | {printable(text.expandtabs())[:_WIDTH]}", "2"))
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    reason = f": {lines[-1]}" if mistakes and lines else ""
    hint = f"whole log: {outcome.log}; run it again: sh {outcome.replay}"
    raise BuildError(f"the step {how}{reason}", where=title, hint=hint)


def lacked_memory(outcome: Outcome) -> bool:
    """Whether it failed as programs do that work in a memory that is full: no space, killed, or an access in vain.

    That a compiler was killed is what a shell or make says, perhaps many lines before the end.
    """
    if outcome.status == 0:
        return False
    text = _end(outcome.log)
    return outcome.status in _KILLED or any(sign in text for sign in _SIGNS)


def _tail(log: Path) -> list[str]:
    return _end(log).splitlines()[-_TAIL:]


def _end(log: Path) -> str:
    """The end of a log, which may be as long as the disk is large."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _READ))
        return file.read().decode(errors="replace")
