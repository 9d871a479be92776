# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Patches of our own: read `series` and the patches that it names, and say how the sandbox applies them.

    FOLDER/series ── FOLDER/*.patch ── load_series ── Patch … ── apply ── recipes/apply-patches.sh, in the sandbox

GNU patch decides whether a patch fits, by its exit status. Checked here is what it does not care about (who wrote a
patch and why, where it stands upstream), and where it would lose something without a word.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import names
from tools.pipeline.base.errors import UserError

SCRIPT = "recipes/apply-patches.sh"
"""What applies patches, from the checkout's root; an input of each step that does, at /inputs/SCRIPT."""

REQUIRED_FIELDS = ("Subject", "SPDX-FileCopyrightText", "SPDX-License-Identifier", "Upstream", "Tested")

# Of this series, or of another one beside it: what fits both is there once.
_FILE_NAME = re.compile(r"(?:\.\./([0-9]+\.[0-9]+)/)?([0-9]{4}-[A-Za-z0-9][A-Za-z0-9._+-]*\.patch)")
_FIELD = re.compile(r"([A-Z][A-Za-z-]*): (\S.*)")
_HUNK = re.compile(r"@@ -[0-9]+(?:,([0-9]+))? \+[0-9]+(?:,([0-9]+))? @@(?: .*)?")
_BETWEEN = re.compile(r"diff --git |index |--- |\+\+\+ |(?:new|deleted) file mode 100(?:644|755)$")
# Where GNU patch sees the beginning of a unified diff (intuit_diff_type in its pch.c).
_DIFF_LIKE = re.compile(r"--- |\+\+\+ |@@ |Index:|Prereq:|diff ")


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A checked patch; `path` is its place from the checkout's root, and below /inputs in the sandbox."""

    path: str
    subject: str


def load_series(root: Path, folder: str, *, licence: str) -> tuple[Patch, ...]:
    """Read the series in a folder of the checkout, and every patch it names; reads nothing else.

    A missing, linked, unreadable or unlisted patch is a UserError that names file and line, and so is one that does
    not say what it must, or that is not under the licence of what it changes.
    """
    series = f"{folder}/series"
    listed = _parse_series(_read(root / series, where=series), folder, where=series)
    there = sorted(f"{folder}/{path.name}" for path in (root / folder).glob("*.patch"))
    for where in there:
        if where not in listed:
            raise UserError("not named in series", where=where, hint="add or delete it")
    patches = []
    for where, number in listed.items():
        path = root / where
        if path.is_symlink() or not path.is_file():
            known = [other.rpartition("/")[2] for other in there]
            what = f"{_named(where, folder)} is missing or not a regular file"
            # Not all names: a series is longer than a line.
            hint = names.meant(path.name, known) or "bring it back, or take the line out"
            raise UserError(what, where=f"{series}:{number}", hint=hint)
        subject = _check(_read(path, where=where), where=where, licence=licence)
        patches.append(Patch(path=where, subject=subject))
    return tuple(patches)


def listed(root: Path, folder: str) -> tuple[str, ...]:
    """The paths of the patches that a series names, from the checkout's root, in order; the patches are not read."""
    series = f"{folder}/series"
    return tuple(_parse_series(_read(root / series, where=series), folder, where=series))


def apply(paths: Iterable[str], *, crlf: bool = False) -> str:
    """Shell: applies patches, by their paths in the sandbox, in the current directory.

    Ends with status 2 and a last line that names patch, file and hunk when one does not fit. `crlf` is for trees
    whose files end their lines with CR LF, and patches that do not.
    """
    return shlex.join(["sh", f"/inputs/{SCRIPT}", *(["--crlf"] if crlf else []), *paths])


def inside(patches: Iterable[Patch]) -> list[str]:
    """Where the sandbox has patches of the checkout."""
    return [f"/inputs/{patch.path}" for patch in patches]


def _named(path: str, folder: str) -> str:
    """What a patch is called in the series of a folder."""
    of, _, name = path.rpartition("/")
    return name if of == folder else f"../{of.rpartition('/')[2]}/{name}"


def _parse_series(text: str, folder: str, *, where: str) -> dict[str, int]:
    """The paths, from the checkout's root, that a `series` file names, in order, each with its line number.

    `../6.12/NAME` is a patch of another series. quilt's options are refused.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        here = f"{where}:{number}"
        words = line.split()
        if len(words) > 1:
            raise UserError(f"unexpected {words[1]!r} after the patch name", where=here, hint="give the name only")
        match = _FILE_NAME.fullmatch(line)
        if not match:
            hint = "expected four digits, '-', a name and '.patch', in the same folder or in ../SERIES"
            raise UserError(f"bad patch name {line!r}", where=here, hint=hint)
        path = f"{folder.rpartition('/')[0]}/{match[1]}/{match[2]}" if match[1] else f"{folder}/{match[2]}"
        if path in found:
            raise UserError(f"{line} is named twice", where=here, hint=f"first in line {found[path]}")
        found[path] = number
    return found


def _check(text: str, *, where: str, licence: str) -> str:
    """Check one patch; its subject."""
    if "\r" in text or "\0" in text or not text.endswith("\n"):
        raise UserError("contains CR or NUL, or does not end with a newline", where=where)
    # Not splitlines(): it also splits at form feeds, which kernel sources contain.
    lines = text[:-1].split("\n")
    fields, end = _parse_fields(lines, where=where)
    for field in REQUIRED_FIELDS:
        if field not in fields:
            raise UserError(f"header field {field!r} is missing", where=where, hint="kernel-patches/README.md says how")
    stated = fields["SPDX-License-Identifier"]
    if stated != licence:
        raise UserError(f"licence is {stated!r}", where=where, hint=f"patches here are {licence}")
    separator = next((n for n in range(end, len(lines)) if lines[n] == "---"), None)
    if separator is None:
        raise UserError("no line '---' between text and diff", where=where)
    if not any(line.strip() for line in lines[end:separator]):
        raise UserError("no text before '---'", where=f"{where}:{end + 1}", hint="say there why the patch exists")
    for number, line in enumerate(lines[:separator], 1):
        if _DIFF_LIKE.match(line):
            raise UserError("line looks like a diff before the separator '---'", where=f"{where}:{number}")
    _check_hunks(lines, start=separator + 1, where=where)
    return fields["Subject"]


def _parse_fields(lines: Sequence[str], *, where: str) -> tuple[dict[str, str], int]:
    """Read `Name: value` lines (continuations are indented) up to the empty line; give them and its index."""
    fields: dict[str, str] = {}
    last = None
    for index, line in enumerate(lines):
        here = f"{where}:{index + 1}"
        if not line:
            return fields, index
        if line[0] == " " and last is not None and line.strip():
            fields[last] = f"{fields[last]} {line.strip()}"
            continue
        match = _FIELD.fullmatch(line)
        if not match:
            raise UserError("not a header field", where=here, hint="'Name: value', then an empty line")
        last = match[1]
        if last in fields:
            raise UserError(f"header field {last!r} is given twice", where=here)
        fields[last] = match[2].rstrip()
    raise UserError("the header never ends", where=where, hint="an empty line goes between header and text")


def _check_hunks(lines: Sequence[str], *, start: int, where: str) -> None:
    """Every line from `start` on must belong to a hunk, or to what stands between two.

    GNU patch 2.8 takes a stray line after a hunk, even an empty one, for the end of the diff: it drops all further
    hunks of the file and ends with status 0.
    """
    old = new = 0  # lines that the open hunk still needs
    for number, line in enumerate(lines[start:], start + 1):
        if match := _HUNK.fullmatch(line) if not (old or new) else None:
            old, new = (1 if count is None else int(count) for count in match.groups())
        elif old or new:
            old -= line[:1] in {" ", "-"}
            new -= line[:1] in {" ", "+"}
            if line[:1] not in {" ", "-", "+", "\\"} or min(old, new) < 0:
                raise UserError("the hunk is not as long as its '@@' line says", where=f"{where}:{number}")
        elif not (_BETWEEN.match(line) or line.startswith("\\")):
            raise UserError("belongs to no hunk", where=f"{where}:{number}", hint="or the '@@' line before it is wrong")
    if old or new or start >= len(lines):
        raise UserError("ends within a hunk, or has none", where=where)


def _read(path: Path, *, where: str) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8", where=where) from None
