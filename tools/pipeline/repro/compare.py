# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Two sets of files: SHA-256 says whether they differ, diffoscope only where."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.repro import environments
from tools.pipeline.sandbox import failure, sandbox

# More than a person reads; an artifact that differs throughout would otherwise give hundreds of megabytes.
_REPORT_MAX = 2 << 20  # bytes
_EXPLAIN = (
    "diffoscope --no-progress --no-default-limits "
    f"--max-text-report-size={_REPORT_MAX} --max-report-size={_REPORT_MAX} "
    "--text=/out/report.txt --html=/out/report.html --json=/out/report.json -- /inputs/plain /inputs/varied "
    # 1 says that they differ, which is known; anything else is trouble.
    "|| test $? = 1"
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A file that came out differently, the reports on it, and the innermost member that differs first."""

    name: str
    member: str
    report: Path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder by its relative path."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): files.of_file(p) for p in found}


def differing(plain: Mapping[str, object], varied: Mapping[str, object]) -> list[str]:
    """Names whose values (digests, say) differ or that only one side has, sorted."""
    return sorted(name for name in {*plain, *varied} if plain.get(name) != varied.get(name))


def explain(plain: Path, varied: Path, *, name: str, folder: Path, tree: Path) -> Difference:
    """Have diffoscope of `tree`, in the sandbox, write report.txt, report.html and report.json into a folder."""
    if not plain.is_file() or not varied.is_file():
        there = "plain" if plain.is_file() else "varied"
        return Difference(name=name, member=f"only the {there} build has it", report=folder)
    folder.mkdir(parents=True)
    sides = {side: _openable(path, folder / side) for side, path in (("plain", plain), ("varied", varied))}
    if sides["plain"].read_bytes() == sides["varied"].read_bytes():
        # They differ between or behind the members.
        sides = {"plain": plain, "varied": varied}
    command = sandbox.Command(
        argv=("/bin/sh", "-euc", _EXPLAIN),
        tree=tree,
        mounts=(
            *(sandbox.Mount(host=path, inside=f"/inputs/{side}") for side, path in sides.items()),
            sandbox.Mount(host=folder, inside="/out", writable=True),
        ),
        # The tree has no loader cache, by which Python would find it.
        environment={"LIBARCHIVE": environments.LIBARCHIVE},
        chdir="/inputs",
    )
    title = f"explaining {name}"
    log, replay = folder / "diffoscope.log", folder / "diffoscope.sh"
    failure.check(sandbox.run(command, title=title, log=log, replay=replay), title=title)
    report = folder / "report.json"
    if not report.is_file():
        raise BuildError("diffoscope found no difference", where=name, hint=f"its log: {folder}")
    return Difference(name=name, member=_first_member(json.loads(report.read_bytes())), report=folder)


def _openable(path: Path, copy: Path) -> Path:
    """The file, or for a program that is a zip archive too a plain archive: its start hides that it is one."""
    data = path.read_bytes() if zipfile.is_zipfile(path) else b""
    if not data.startswith(b"#!"):
        return path
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as plain:
        members = [(info, archive.read(info)) for info in archive.infolist()]
        start = data[: min(info.header_offset for info, _ in members)]
        for info, content in members:
            plain.writestr(info, content)
        # Last, for it may hold offsets, which change with any member.
        plain.writestr(zipfile.ZipInfo("(start)"), start)
    return copy


def _first_member(report: Mapping[str, Any]) -> str:
    """The path through the report's first members to what has none: archive, member, member's part."""
    names: list[str] = []
    details = report.get("details") or []
    while details:
        # What a program says of the whole ("zipinfo {}") stands beside the members, and tells less.
        members = [item for item in details if "{}" not in str(item.get("source1", ""))]
        here = (members or details)[0]
        names.append(str(here.get("source1", "")))
        details = here.get("details") or []
    return " → ".join(names) or "the file itself"
