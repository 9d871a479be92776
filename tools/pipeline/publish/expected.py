# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/expected.sha256: the digests that this commit's artifacts have, wherever they are built.

In sha256sum's format with paths from the checkout's root, so that `sha256sum -c` reads it too. A change of
bytes is a change of this file, which people review.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.base.errors import UserError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE

EXPECTED = "recipes/expected.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (out(?:-[a-z0-9._-]+)?/[A-Za-z0-9._+/-]+)")


def load(root: Path) -> dict[str, str]:
    """Path → SHA-256; empty when there is no such file yet. UserError names the line that is wrong."""
    path = root / EXPECTED
    if not path.exists():
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in found:
            what = "stands twice" if match else "is not a digest, two spaces and a path below out/"
            raise UserError(f"{line[:100]!r} {what}", where=f"{EXPECTED}:{number}", hint="run ./doit accept")
        found[match[2]] = match[1]
    return found


def measure(root: Path, folder: Path) -> dict[str, str]:
    """The same for what an output folder holds."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): files.of_file(path) for path in found}


def differing(expected: Mapping[str, str], found: Mapping[str, str], *, folder: str) -> list[str]:
    """Paths below the folder whose digests differ, or that only one side has, sorted."""
    wanted = {path: value for path, value in expected.items() if path.startswith(f"{folder}/")}
    return sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How an output folder compares: whether it is as expected, and a line for people."""

    good: bool
    line: str


def verdict(root: Path, folder: Path) -> Verdict:
    """Compare an output folder with what is expected of it."""
    expected = load(root)
    accept = f"./doit accept:{folder.name.removeprefix('out-') if folder.name != 'out' else DEFAULT_PROFILE}"
    if not any(path.startswith(f"{folder.name}/") for path in expected):
        line = f"nothing is expected of {folder.name}/ yet ({EXPECTED}); when it is right: {accept}"
        return Verdict(good=False, line=line)
    names = differing(expected, measure(root, folder), folder=folder.name)
    if not names:
        return Verdict(good=True, line=f"matches the expected digests ({EXPECTED})")
    return Verdict(good=False, line=f"differs from {EXPECTED}: {', '.join(names)}; if that is intended: {accept}")


def accept(root: Path, folders: Sequence[Path], *, all_folders: Sequence[Path]) -> list[str]:
    """Write what the output folders hold; the changes, one line each.

    What is expected of others of `all_folders` stays; of a folder that no profile fills any more, nothing is expected.
    """
    path = root / EXPECTED
    before: Mapping[str, str] = {}
    if path.exists():
        # A broken file is about to be replaced.
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        before = {match[2]: match[1] for line in lines if (match := _LINE.fullmatch(line))}
    others = {folder.name for folder in all_folders} - {folder.name for folder in folders}
    after = {name: value for name, value in before.items() if name.partition("/")[0] in others}
    for folder in folders:
        after |= measure(root, folder)
    text = "".join(f"{after[name]}  {name}\n" for name in sorted(after))
    files.write_if_changed(path, text.encode())
    return [
        f"{name}  {before.get(name, 'nothing')[:16]} → {after.get(name, 'nothing')[:16]}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
