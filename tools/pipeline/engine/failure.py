# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""How a failed step is told: the end of its log, and one line."""

import signal
from pathlib import Path
from typing import NoReturn

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.step import Step

_TAIL = 20  # lines of a failed step's log that are shown
_READ = 64 << 10  # bytes of the log's end in which they are looked for
_MISTAKE = 2  # exit status of a program that says that its input is at fault


def raise_for(step: Step, status: int, *, log: Path, replay: Path) -> NoReturn:
    """Raise UserError for a mistake that the step told of, else BuildError after showing the log's end."""
    lines = tail(log)
    if step.mistakes and status == _MISTAKE and lines:
        raise UserError(lines[-1])
    for text in lines:
        ui.line(ui.paint(f"   | {text}", "2"))
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    reason = f": {lines[-1]}" if step.mistakes and lines else ""
    raise BuildError(f"the step {how}{reason}", where=step.title, hint=f"whole log: {log}; run it again: sh {replay}")


def tail(log: Path) -> list[str]:
    """The last lines of a log that is at most this machine's disk long."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _READ))
        return file.read().decode(errors="replace").splitlines()[-_TAIL:]
