# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the launcher itself says: on stderr, one line each, prefixed. Stdout belongs to the workload."""

import io
import sys

from tools.launcher.base.errors import LauncherError
from tools.sev.errors import printable

NAME = "sev-launch"
_BOLD_RED, _YELLOW, _DIM, _RESET = "\x1b[1;31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
UNPROTECTED = (
    "WARNING: UNPROTECTED GUEST, NOT ENCRYPTED: nothing in it is encrypted or can be attested; "
    "this host can read and change all of it"
)


class Ui:
    """Prefixed lines on stderr; colour on a terminal unless NO_COLOR is set (no-color.org)."""

    def __init__(self, *, quiet: bool = False) -> None:
        stream = sys.stderr
        self._colour = stream is not None and stream.isatty() and colour_wanted()
        self._quiet = quiet

    def note(self, text: str) -> None:
        """Something worth knowing; left out when quiet."""
        if not self._quiet:
            self._line(f"{NAME}: {text}", _DIM)

    def warn(self, text: str) -> None:
        """Something that must be seen."""
        self._line(f"{NAME}: {text}", _YELLOW)

    def alarm(self, text: str) -> None:
        """The line that nobody may miss."""
        self._line(f"{NAME}: {text}", _BOLD_RED)

    def error(self, text: str) -> None:
        """The one line of a failure."""
        self._line(f"{NAME}: {text}", _BOLD_RED)

    def detail(self, text: str) -> None:
        """A line that belongs to the one before it."""
        self._line(f"  {text}", _DIM)

    def _line(self, text: str, style: str) -> None:
        text = printable(text)
        if self._colour:
            text = f"{style}{text}{_RESET}"
        write_stderr(text + "\n")


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def colour_wanted() -> bool:
    """Whether a terminal may be coloured (no-color.org)."""
    import os  # noqa: PLC0415 (start-up: without a terminal nobody asks)

    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_stderr(text: str) -> None:
    """Write to fd 2 past Python's buffers; a closed stderr is no reason to fail."""
    try:
        _write(2, text)
    except OSError:
        return  # there is nowhere to say so


def write_stdout(text: str) -> None:
    """Write a command's answer to fd 1; BrokenPipeError passes to the caller, LauncherError when it is lost."""
    try:
        _write(1, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LauncherError(f"{error.strerror}; output was lost", where="stdout") from None


def _write(descriptor: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    with io.FileIO(descriptor, "w", closefd=False) as stream:
        while data:
            data = data[stream.write(data) or 0 :]


def write_json(document: object) -> None:
    """Write a command's answer as one JSON document."""
    import json  # noqa: PLC0415 (start-up: most answers are text)

    write_stdout(json.dumps(document, indent=2) + "\n")
