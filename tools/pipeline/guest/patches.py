# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel patches: read `series` and the patches it names, say how to apply them, judge what GNU patch says.

A patch is untrusted input for a program that guesses a lot (it reads ed scripts, context diffs and whatever
stands between two diffs). So only one form passes: a header of named fields, a text, a line `---`, and then
unified git diffs and nothing else. Application happens inside the sandbox; this module gives the argv and
judges the log.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base.errors import BuildError, UserError

# Every patch becomes part of the kernel; GPL-2.0-only is the kernel's own licence (COPYING).
LICENSE = "GPL-2.0-only"
REQUIRED_FIELDS = ("Subject", "SPDX-FileCopyrightText", "SPDX-License-Identifier", "Upstream", "Tested")

_FILE_NAME = re.compile(r"[0-9]{4}-[A-Za-z0-9][A-Za-z0-9._+-]*\.patch")
_FIELD = re.compile(r"([A-Z][A-Za-z-]*): (\S.*)")
_TARGET = re.compile(r"[A-Za-z0-9._+,@=-]+(/[A-Za-z0-9._+,@=-]+)*")
_HUNK = re.compile(r"@@ -[0-9]+(?:,([0-9]+))? \+[0-9]+(?:,([0-9]+))? @@(?: .*)?")
_GIT_LINE = re.compile(r"diff --git a/(\S+) b/(\S+)")
_EXTENDED = re.compile(r"index [0-9a-f]+\.\.[0-9a-f]+(?: 100(?:644|755))?|(?:new|deleted) file mode 100(?:644|755)")
# What GNU patch would take for the beginning of a diff if it stood in the text before the separator
# (intuit_diff_type in its pch.c): unified, context and git headers, commands of ed scripts and normal diffs.
_DIFF_LIKE = re.compile(r"(?:--- |\+\+\+ |\*\*\* |@@ |Index:|Prereq:|diff |[0-9]+(?:,[0-9]+)?[acd])")

_MARKER = "=== applying "
_PATCHING = re.compile(r"patching file '?([^']+)'?")
_SUCCEEDED = re.compile(r"Hunk #(\d+) succeeded at \d+(?: with fuzz (\d+))?(?: \(offset (-?\d+) lines?\))?\.")
_MISSING = re.compile(r"can't find file to patch at input line (\d+)")
_COMPLAINT = re.compile(r"patch: |.*previously applied|.* refusing to patch|The next patch would create")
_FAILED = re.compile(r"Hunk #(\d+) (?:FAILED|NOT MERGED) at (\d+)(?:-\d+)?(?: .*)?\.")


@dataclass(frozen=True, kw_only=True)
class FileDiff:
    """The part of a patch that concerns one file; `hunks` are the line numbers of its `@@` lines."""

    target: str
    hunks: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A checked patch. `where` is how messages call it; `name` is its file name in the series."""

    name: str
    where: str
    subject: str
    upstream: str
    tested: str
    files: tuple[FileDiff, ...]


@dataclass(frozen=True, kw_only=True)
class Offset:
    """A hunk whose whole context stood `lines` lines away from where the patch expected it."""

    patch: str
    target: str
    hunk: int
    lines: int

    def __str__(self) -> str:
        return f"{self.patch}: {self.target}: hunk {self.hunk} applied {self.lines:+d} lines away"


def parse_series(text: str, *, where: str) -> dict[str, int]:
    """Give the patch names of a `series` file in order, each with its line number.

    One name a line; empty lines and lines that begin with `#` are skipped; quilt's options are refused.
    """
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        here = f"{where}:{number}"
        words = line.split()
        if len(words) > 1:
            raise UserError(f"unexpected {words[1]!r} after the patch name", where=here, hint="give the name only")
        if not _FILE_NAME.fullmatch(line):
            raise UserError(
                f"bad patch name {line!r}",
                where=here,
                hint="expected four digits, '-', a name and '.patch', in the same folder",
            )
        if line in names:
            raise UserError(f"{line} is named twice", where=here, hint=f"first in line {names[line]}")
        names[line] = number
    return names


def parse_patch(text: str, *, name: str, where: str, licence: str = LICENSE) -> Patch:
    """Check one patch, give its header and targets; `where` names it in errors (UserError, with the line)."""
    if "\r" in text or "\0" in text or not text.endswith("\n"):
        raise UserError("contains CR or NUL, or does not end with a newline", where=where)
    # Not splitlines(): it also splits at form feeds, which kernel sources contain.
    lines = text[:-1].split("\n")
    fields, end = _parse_fields(lines, where=where)
    for field in REQUIRED_FIELDS:
        if field not in fields:
            raise UserError(f"header field {field!r} is missing", where=where, hint="see README.md there")
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
    return Patch(
        name=name,
        where=where,
        subject=fields["Subject"],
        upstream=fields["Upstream"],
        tested=fields["Tested"],
        files=tuple(_parse_diffs(lines, start=separator + 1, where=where)),
    )


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


def _parse_diffs(lines: Sequence[str], *, start: int, where: str) -> Iterator[FileDiff]:
    """Read git diffs from `lines[start:]`, strictly: nothing may stand between or after them."""
    at = start
    seen: set[str] = set()
    if at >= len(lines):
        raise UserError("no diff after the separator '---'", where=where)
    while at < len(lines):
        here = f"{where}:{at + 1}"
        git = _GIT_LINE.fullmatch(lines[at])
        if not git:
            raise UserError("expected 'diff --git a/… b/…'", where=here, hint="nothing else may follow '---'")
        target = _check_target(git[1], here=here)
        if git[2] != target:
            raise UserError(f"{target} becomes {git[2]}", where=here, hint="make the diff with --no-renames")
        if target in seen:
            raise UserError(f"{target} appears twice in this patch", where=here)
        seen.add(target)
        at += 1
        new = deleted = False
        while at < len(lines) and _EXTENDED.fullmatch(lines[at]):
            new |= lines[at].startswith("new ")
            deleted |= lines[at].startswith("deleted ")
            at += 1
        old_name = "/dev/null" if new else f"a/{target}"
        new_name = "/dev/null" if deleted else f"b/{target}"
        for line in (f"--- {old_name}", f"+++ {new_name}"):
            if at >= len(lines) or lines[at] != line:
                hint = "binary, mode-only and link changes are refused"
                raise UserError(f"expected {line!r}", where=f"{where}:{at + 1}", hint=hint)
            at += 1
        hunks = []
        while at < len(lines) and lines[at].startswith("@@"):
            hunks.append(at + 1)
            at = _skip_hunk(lines, at, where=where)
        if not hunks:
            raise UserError(f"no hunk for {target}", where=f"{where}:{at}")
        yield FileDiff(target=target, hunks=tuple(hunks))


def _check_target(target: str, *, here: str) -> str:
    if not _TARGET.fullmatch(target) or not {".", "..", ".git"}.isdisjoint(target.split("/")):
        raise UserError(f"target {target!r} is not a plain path inside the source tree", where=here)
    return target


def _skip_hunk(lines: Sequence[str], at: int, *, where: str) -> int:
    """Give the index after the hunk at `at`; its lines must be exactly as many as its `@@` line says."""
    match = _HUNK.fullmatch(lines[at])
    if not match:
        raise UserError("malformed '@@' line", where=f"{where}:{at + 1}")
    old, new = (1 if count is None else int(count) for count in match.groups())
    begin = at
    at += 1
    while old > 0 or new > 0:
        kind = lines[at][:1] if at < len(lines) else "?"
        if kind not in (" ", "-", "+", "\\"):
            break
        old -= kind in " -"
        new -= kind in " +"
        at += 1
    if old or new:
        raise UserError("hunk is shorter or longer than its '@@' line says", where=f"{where}:{begin + 1}")
    if at < len(lines) and lines[at].startswith("\\"):
        at += 1
    return at


def load_series(folder: Path, *, label: str, licence: str = LICENSE) -> tuple[Patch, ...]:
    """Read `folder/series` and every patch it names; `label` is what messages call the folder.

    A missing, linked, unreadable or unlisted patch is a UserError that names file and line.
    """
    series = f"{label}/series"
    names = parse_series(_read(folder / "series", where=series), where=series)
    for path in sorted(folder.glob("*.patch")):
        if path.name not in names:
            raise UserError("not named in series", where=f"{label}/{path.name}", hint="add or delete it")
    patches = []
    for name, number in names.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{name} is missing or not a regular file", where=f"{series}:{number}")
        where = f"{label}/{name}"
        patches.append(parse_patch(_read(path, where=where), name=name, where=where, licence=licence))
    return tuple(patches)


def _read(path: Path, *, where: str) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 (byte {error.start})", where=where) from None


def apply_argv(patches: Sequence[Patch], *, folder: str) -> list[str]:
    """Give the argv that applies `patches` in the current directory; `folder` is where the sandbox has them.

    GNU patch's options: no fuzz; no questions; a patch that is already in is an error, not a reversal;
    unified diffs only, whatever the text looks like; no conversion of line ends; nothing but the patched
    files is left behind. The first patch that fails ends the run with its exit status.
    """
    options = "-p1 --unified --fuzz=0 --batch --forward --binary --no-backup-if-mismatch --reject-file=-"
    script = f'for p in "$@"; do printf "{_MARKER}%s\\n" "$p"; patch {options} --input="$0/$p" 2>&1 || exit $?; done'
    return ["/bin/sh", "-euc", script, folder, *(patch.name for patch in patches)]


def check_log(log: str, *, exit_status: int, patches: Sequence[Patch]) -> tuple[Offset, ...]:
    """Judge the output of `apply_argv`: BuildError for a patch that failed, needs fuzz, or was not tried.

    Offsets are allowed and returned, for the caller to print: with no fuzz the whole context of a hunk, three
    lines on each side, was found unchanged, and every stable release moves some lines; refusing would turn
    each update of the pinned source into a refresh of all patches that tells nothing. Fuzz ignores context.
    """
    names = {patch.name: patch for patch in patches}
    sections: dict[str, list[str]] = {}
    name = ""
    for line in log.split("\n"):
        if line.startswith(_MARKER) and line.removeprefix(_MARKER) in names:
            name = line.removeprefix(_MARKER)
        sections.setdefault(name, []).append(line)
    offsets: list[Offset] = []
    hint = "refresh the patch against the pinned source"
    for name, patch in names.items():
        if name not in sections:
            break
        problems, complaint = [], ""
        for note in _read_section(patch, sections[name]):
            if isinstance(note, Offset):
                offsets.append(note)
            elif _COMPLAINT.match(note):
                complaint = complaint or note
            else:
                problems.append(note)
        if not problems and exit_status and name == next(reversed(sections)):
            problems = [complaint or f"patch ended with exit status {exit_status}"]
        if problems:
            raise BuildError("; ".join(problems), where=patch.where, hint=hint)
    if exit_status or len(sections.keys() & names.keys()) < len(names):
        last = " ".join(sections.get("", [])).strip() or "its output does not show every patch"
        raise BuildError(f"applying ended with exit status {exit_status}: {last}", where="kernel patches")
    return tuple(offsets)


def _read_section(patch: Patch, lines: Sequence[str]) -> Iterator[Offset | str]:
    """Yield offsets, problems and free-text complaints from GNU patch's output for one patch."""
    target = ""
    for line in lines:
        if match := _PATCHING.fullmatch(line):
            target = match[1]
        elif match := _SUCCEEDED.fullmatch(line):
            if int(match[2] or 0):
                yield f"{_hunk(patch, target, int(match[1]))} applies only with fuzz {match[2]}"
            elif match[3]:
                yield Offset(patch=patch.name, target=target, hunk=int(match[1]), lines=int(match[3]))
        elif match := _FAILED.fullmatch(line):
            yield f"{_hunk(patch, target, int(match[1]))} does not apply at line {match[2]}"
        elif match := _MISSING.fullmatch(line):
            yield f"{_target_at(patch, int(match[1]))} is not in the source"
        elif _COMPLAINT.match(line):
            yield line.rstrip(",")


def _hunk(patch: Patch, target: str, number: int) -> str:
    """Name a hunk by file and number and, where known, by its line in the patch."""
    for diff in patch.files:
        if diff.target == target and number <= len(diff.hunks):
            line = diff.hunks[number - 1]
            return f"{target}: hunk {number} of {len(diff.hunks)} (line {line} of the patch)"
    return f"{target}: hunk {number}"


def _target_at(patch: Patch, number: int) -> str:
    """Name the file whose first hunk follows line `number` of the patch."""
    return next((diff.target for diff in patch.files if diff.hunks[0] >= number), "a file")
