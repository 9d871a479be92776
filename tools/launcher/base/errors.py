# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, by exit status; anything else that escapes is a bug."""

from tools.sev.errors import FormatError, one_line, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class LauncherError(Exception):
    """One line: where, what, what to do next. `exit_status` is what the command ends with.

    `details` are lines shown after it: several reasons, QEMU's own words, the end of the guest's console.
    """

    exit_status = 125

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(one_line(what, where=where, hint=hint))
        self.details = tuple(printable(line) for line in details)


class UserError(LauncherError):
    """A wrong option, config, artifact or host for what was asked. Exit status 2."""

    exit_status = 2

    @classmethod
    def of(cls, error: FormatError) -> "UserError":
        """What tools/sev found wrong with a file."""
        return cls(error.what, where=error.where, hint=error.hint)

    @classmethod
    def of_write(cls, error: OSError, folder: object) -> "UserError":
        """What keeps a run from writing into its folder: that place is full, not the file that is copied to it."""
        return cls(error.strerror or "cannot be written", where=str(folder), hint="point TMPDIR to a folder with room")


class CheckError(LauncherError):
    """A check of what was built found something wrong. Exit status 1."""

    exit_status = 1


class GuestError(LauncherError):
    """The guest itself failed: never came up, broke the protocol, died. Exit status 125."""


class WorkloadError(LauncherError):
    """The workload could not be started; 126 and 127 as shells use them."""

    def __init__(self, what: str, *, exit_status: int) -> None:
        super().__init__(what)
        self.exit_status = exit_status


class Interrupted(LauncherError):  # noqa: N818  an outcome, not a fault
    """A signal ended the launcher, and with it the guest. Exit status 128 + its number."""

    def __init__(self, signal_number: int, what: str = "before the workload ran") -> None:
        super().__init__(f"stopped by signal {signal_number} {what}")
        self.exit_status = 128 + signal_number


def suggestion(text: str, known: "Sequence[str]") -> str:
    """`, did you mean …?` when something known is close to `text`, else nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 (start-up: only a mistake needs it)

    close = get_close_matches(text, known, n=1)
    return f", did you mean {close[0]}?" if close else ""
