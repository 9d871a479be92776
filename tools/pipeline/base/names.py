# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A hint for a name that is not there: the one that was probably meant, and all that would do."""

from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """What to say after "no such NAME": the nearest of the known names, if one is near, and all of them."""
    # Only a mistake pays for the import.
    import difflib  # noqa: PLC0415

    names = sorted(known)
    # A long name takes long to compare; no name of ours has more than 64 characters.
    near = difflib.get_close_matches(name[:64], names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}there are: {', '.join(names) or 'none'}"
