# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The two kinds of failure that a user sees; anything else that escapes is a bug."""

import re
from typing import Self

from tools.sev.errors import FormatError, one_line

# RFC 3986: user information ends at the last '@' before the authority's end. Also inside somebody else's
# sentence, so blanks and quotes end it too.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^\s/?#'\"<>]*@")


def mask(text: str) -> str:
    """The text with *** in place of user and password of each URL in it."""
    return _USER.sub(r"\1***@", text)


class SevArtifactsError(Exception):
    """One line: where, what, what to do next. `exit_status` is what the command ends with."""

    exit_status = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(
            one_line(
                mask(what), where=None if where is None else mask(where), hint=None if hint is None else mask(hint)
            )
        )
        self.what = what
        self.where = where
        self.hint = hint

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
