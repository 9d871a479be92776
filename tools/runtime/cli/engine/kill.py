# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime kill`: a signal to the workload."""

import os

from tools.launcher.base.errors import UserError
from tools.runtime.cli import words
from tools.runtime.life import talk
from tools.runtime.life.folder import ContainerError, Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tools.runtime.cli.main import Context

_KILL, _TERM, _LAST = 9, "15", 64
_NAMES = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
)  # fmt: skip
"""By number from 1: signal(7), x86."""


def run(given: list[str], context: "Context") -> int:
    """Returns once it is on its way."""
    found = words.parse(given, {"--all": False}, short={"-a": "--all"})
    if not 1 <= len(found.rest) <= 2:
        raise UserError("kill takes a container id and a signal")
    folder = Folder(context.root, found.rest[0])
    number = _number(found.rest[1] if len(found.rest) > 1 else _TERM)
    folder.require()
    pid = folder.monitor()
    if pid is None:
        raise ContainerError("cannot be signalled: it is stopped", where=folder.name)
    if number == _KILL:
        # The host can always end a guest, whatever the guest thinks of it: QEMU ends with its monitor.
        os.kill(pid, _KILL)
    else:
        talk.ask(folder, f"signal {number}")
    return 0


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 2:
        number = int(text)
    else:
        name = text.upper().removeprefix("SIG")
        number = _NAMES.index(name) + 1 if name in _NAMES else 0
    if not 1 <= number <= _LAST:
        raise UserError(f"{text[:40]!r} is no signal")
    return number
