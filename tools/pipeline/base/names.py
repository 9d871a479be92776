# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A hint for a name that is not there: the one that was probably meant, and all that would do."""

from collections.abc import Collection, Iterable


def meant(name: str, known: Iterable[str]) -> str:
    """The question whether the nearest of the known names was meant; empty if none is near."""
    import difflib  # noqa: PLC0415 (start-up: only a mistyped name needs it)

    # A long name takes long to compare; few names of ours have more than 64 characters.
    near = difflib.get_close_matches(name[:64], sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def hint(name: str, known: Collection[str]) -> str:
    """What to say after "no such NAME": the nearest of the known names, if one is near, and all of them."""
    return f"{meant(name, known)} there are: {', '.join(sorted(known)) or 'none'}".lstrip()
