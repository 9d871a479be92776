# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The two kinds of failure that a user sees; anything else that escapes is a bug."""

from collections.abc import Sequence
from typing import Self

from tools.sev.errors import FormatError, one_line, printable


class SevArtifactsError(Exception):
    """One line: where, what, what to do next. `exit_status` is what the command ends with.

    `details` are for what was found in several places at once: one more line each, below it and indented.
    """

    exit_status = 1

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        lines = (one_line(what, where=where, hint=hint), *(f"   {printable(detail)}" for detail in details))
        super().__init__("\n".join(lines))
        self.what = what
        self.where = where
        self.hint = hint
        self.details = tuple(details)

    @classmethod
    def of(cls, error: FormatError) -> Self:
        """What tools/sev found, as an error of this kind."""
        return cls(error.what, where=error.where, hint=error.hint)


class UserError(SevArtifactsError):
    """The user's mistake: a bad recipe, lock, option or environment. Exit status 2."""

    exit_status = 2


class BuildError(SevArtifactsError):
    """A build step, download or check failed although the request made sense. Exit status 1."""

    exit_status = 1
