# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What this room raises, and how an error becomes one line."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def printable(text: str) -> str:
    """Escape every control character, so that quoted input keeps to its line and off the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def nearest(text: str, others: "Iterable[str]") -> str | None:
    """The one of the others that is a misspelling of `text`, or the other way round; None: none is so near."""
    from difflib import get_close_matches  # noqa: PLC0415 (start-up: only a mistake needs it)

    return next(iter(get_close_matches(text, list(others), n=1, cutoff=0.8)), None)


def mask(text: str) -> str:
    """The text with *** in place of user and password of each URL in it."""
    if "@" not in text:
        return text
    import re  # noqa: PLC0415 (most programs start without it)

    # RFC 3986: user information ends at the last '@' before the authority's end. Also inside somebody else's
    # sentence, so blanks and quotes end it too.
    return re.sub(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^\s/?#'\"<>]*@", r"\1***@", text)


def one_line(what: str, *, where: str | None, hint: str | None) -> str:
    """`where: what; hint`, safe to show: no control characters, no passwords in URLs."""
    line = f"{where}: {what}" if where else what
    return printable(mask(f"{line}; {hint}" if hint else line))


class FormatError(ValueError):
    """A file or value is not of its format: what is wrong, where, and what to do next.

    Whether that is the user's mistake or a failed build is for the caller to say.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(one_line(what, where=where, hint=hint))
        self.what = what
        self.where = where
        self.hint = hint
