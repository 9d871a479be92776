# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The two kinds of failure that a user sees; anything else that escapes is a bug."""

from collections.abc import Sequence


class SevArtifactsError(Exception):
    """One line: where, what, what to do next. `exit_status` is what the command ends with.

    `details` are for what was found in several places at once: one more line each, below it and indented.
    """

    exit_status = 1

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        line = f"{where}: {what}" if where else what
        if hint:
            line = f"{line}; {hint}"
        # Control characters in quoted input must not break the one-line promise or reach the terminal.
        lines = (line, *(f"   {detail}" for detail in details))
        super().__init__("\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in text) for text in lines))
        self.what = what
        self.where = where
        self.hint = hint
        self.details = tuple(details)


class UserError(SevArtifactsError):
    """The user's mistake: a bad recipe, lock, option or environment. Exit status 2."""

    exit_status = 2


class BuildError(SevArtifactsError):
    """A build step, download or check failed although the request made sense. Exit status 1."""

    exit_status = 1
