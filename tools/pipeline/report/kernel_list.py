# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The kernel's own list of CVEs, from a local copy: git.kernel.org's security/vulns, or only its folder `cve`.

FOLDER/cve/published/YEAR/CVE-*.json ── titles, files that the fix changes, affected versions
FOLDER/cve/rejected/YEAR/CVE-* ── what is no CVE any more

A record is one of CVE JSON 5. Which versions are affected stands in an entry whose default is "affected", with
ranges that are not; the other entry speaks of commits, which nobody can compare with an archive.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base.errors import UserError
from tools.pipeline.report.changelog import CVE

_NUMBERS = re.compile(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?(-rc[0-9]+)?")
_SIZE = 4 << 20  # bytes of a record
Version = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Versions from `low` to `high` that are not affected; `high` None: all that come later."""

    low: Version
    high: Version | None
    below: bool

    def holds(self, version: Version) -> bool:
        """Whether a version is one of them."""
        if version < self.low:
            return False
        return self.high is None or (version < self.high if self.below else version <= self.high)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A published CVE. `files` are paths in the kernel's tree that its fix changes; `known`: versions are given."""

    cve: str
    title: str
    files: tuple[str, ...]
    unaffected: tuple[Range, ...]
    known: bool

    def affects(self, version: Version) -> bool | None:
        """Whether a version is affected; None where the record does not say."""
        return not any(one.holds(version) for one in self.unaffected) if self.known else None

    def fixed_in(self, version: Version) -> str:
        """The first release of the version's series, or a series after it, with the fix; empty where there is none."""
        later = [one.low for one in self.unaffected if one.low > version]
        same = [low for low in later if low[:2] == version[:2]]
        found = min(same or later, default=None)
        return "" if found is None else _text(found)

    def fixed_before(self, version: Version) -> str:
        """Where the fix came into the version's series at or before it; empty: it never had the fault."""
        same = [one.low for one in self.unaffected if one.low[:2] == version[:2] and one.low <= version]
        return _text(max(same)) if same else ""


@dataclass(frozen=True, kw_only=True)
class KernelList:
    """The records, by their ids; ids that were rejected; the day of the newest record as YYYY-MM-DD."""

    records: Mapping[str, Record]
    rejected: frozenset[str]
    date: str


def number(text: str) -> Version | None:
    """6.12.107, 6.12 or 6.13-rc1, which counts as 6.13; None for anything else."""
    match = _NUMBERS.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def _text(version: Version) -> str:
    return ".".join(map(str, version if version[2] else version[:2]))


def load(folder: Path) -> KernelList:
    """Read a local copy. UserError when the folder is none, or a record cannot be read."""
    top = folder / "cve" if (folder / "cve").is_dir() else folder
    if not (top / "published").is_dir():
        hint = "give the folder that git clone made of security/vulns, or its folder cve"
        raise UserError("is no copy of the kernel's CVE list: it has no cve/published/", where=str(folder), hint=hint)
    records, newest = {}, ""
    for path in sorted((top / "published").glob("*/CVE-*.json")):
        record, date = _read(path, shown=f"{folder.name}/{path.relative_to(top).as_posix()}")
        records[record.cve] = record
        newest = max(newest, date)
    if not records:
        raise UserError("has no record", where=f"{folder}: cve/published", hint="git pull there")
    names = sorted((top / "rejected").glob("*/CVE-*"))
    rejected = {match[0] for path in names if (match := CVE.match(path.name))}
    return KernelList(records=records, rejected=frozenset(rejected), date=newest)


def _read(path: Path, *, shown: str) -> tuple[Record, str]:
    try:
        with path.open("rb") as stream:
            document = json.loads(stream.read(_SIZE))
        meta, said = document["cveMetadata"], document["containers"]["cna"]
        # Records that were written before 2025 spell it so.
        cve = CVE.fullmatch(meta.get("cveId", meta.get("cveID")))[0]  # type: ignore[index]  # TypeError, if None
        record = _record(cve, said)
        date = str(meta.get("dateUpdated") or said.get("providerMetadata", {}).get("dateUpdated") or "")[:10]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError("is no CVE record", where=shown, hint="is the copy complete? git -C FOLDER status") from None
    return record, date if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date) else ""


def _record(cve: str, said: Mapping[str, Any]) -> Record:
    files: set[str] = set()
    ranges: list[Range] = []
    known = False
    for entry in said.get("affected", ()):
        files |= {name for name in entry.get("programFiles", ()) if isinstance(name, str)}
        if entry.get("defaultStatus") != "affected":
            continue
        known = True
        fine = (one for one in entry.get("versions", ()) if one.get("status") == "unaffected")
        ranges += [found for one in fine if (found := _range(one)) is not None]
    title = str(said.get("title") or "")[:300]
    return Record(cve=cve, title=title, files=tuple(sorted(files)), unaffected=tuple(ranges), known=known)


def _range(one: Mapping[str, Any]) -> Range | None:
    low = (0, 0, 0) if one["version"] == "0" else number(str(one["version"]))
    if low is None:
        return None
    if "lessThan" in one:
        high = number(str(one["lessThan"]))
        return None if high is None else Range(low=low, high=high, below=True)
    top = str(one.get("lessThanOrEqual", one["version"]))
    if top == "*":
        return Range(low=low, high=None, below=False)
    if top.endswith(".*"):
        # 6.12.*: all of a series.
        series = number(top.removesuffix(".*"))
        return None if series is None else Range(low=low, high=(series[0], series[1] + 1, 0), below=True)
    high = number(top)
    return None if high is None else Range(low=low, high=high, below=False)
