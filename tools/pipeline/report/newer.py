# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Changelogs of versions that are newer than the pins: asked for at the mirrors, remembered for whoever has no network.

signed index ── versions after the pin, newest first ── the first whose packaging a mirror has ── the cache
build/cve/newer.json ── which that was, and when the mirrors were asked
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.report import changelog
from tools.pipeline.report.changelog import Changelog
from tools.pipeline.sources import fetch, wanted
from tools.pipeline.sources.apt import Apt, Found
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import Pin, Source

_RECORD = "cve/newer.json"


@dataclass(frozen=True, kw_only=True)
class Newer:
    """What the mirrors had when they were asked, on the day `asked` (YYYY-MM-DD); None: nothing newer.

    `listed` is a version that is newer still: the index names it, and no mirror has it. Empty where there is none.
    """

    asked: str
    changelog: Changelog | None
    listed: str = ""


def packaging(sources: Sequence[Source], name: str) -> Source | None:
    """The pin of Debian's packaging that belongs to the source `name`: of the same package and version."""
    of = next((source for source in sources if source.pin.name == name), None)
    if of is None:
        return None
    same = [s for s in sources if (s.wanted.package, s.pin.version) == (of.wanted.package, of.pin.version)]
    return next((source for source in same if ".debian.tar." in source.wanted.file), None)


def pinned(cas: Cas, source: Source) -> Changelog:
    """The changelog of a packaging that is in the cache. BuildError when it is not."""
    data = cas.read(source.pin.sha256, source.pin.size)
    if data is None:
        raise BuildError("is not in the cache", where=source.pin.where, hint="./doit fetch")
    return changelog.read(data, where=source.wanted.file)


def known(build: Path, cas: Cas, source: Source) -> Newer | None:
    """What was found when the mirrors were last asked about this very pin; None where they were not."""
    try:
        said = _load(build)[source.pin.name]
        if said["than"] != source.pin.version:
            return None
        if "sha256" not in said:
            return Newer(asked=str(said["asked"]), changelog=None, listed=str(said["listed"]))
        data = cas.read(str(said["sha256"]), int(said["size"]))
        where = f"{source.wanted.package} {said['version']}"
        if data is None:
            return None
        found = changelog.read(data, where=where)
        return Newer(asked=str(said["asked"]), changelog=found, listed=str(said["listed"]))
    except (KeyError, TypeError, ValueError):
        return None  # never asked, or by another version of this code


def ask(apt: Apt, mirrors: Mirrors, source: Source, *, root: Path, build: Path, cas: Cas) -> Newer:
    """Ask the mirrors, whose index `apt` has just taken. BuildError when one does not answer."""
    package, version, index = source.wanted.package, source.pin.version, apt.fingerprint()
    before = known(build, cas, source)
    # What was listed and on no mirror may be there by now.
    if before is not None and not before.listed and _load(build)[source.pin.name].get("index") == index:
        return before
    listed_versions = apt.source_versions(package)
    if not listed_versions:
        raise BuildError(f"the index has no source package {package}", hint="./doit cve --newer asks for it anew")
    series = source.wanted.series
    same = [other for other in listed_versions if not series or wanted.in_series(other, series)]
    later = [other for other in same if apt.precedes(version, other)]
    now = dt.datetime.fromtimestamp(int(ambient.now()), dt.UTC).date().isoformat()
    record: dict[str, Any] = {"than": version, "asked": now, "listed": "", "index": index}
    found = None
    for other in apt.newest_first(later):
        listed = next((one for one in apt.source(package, other) if ".debian.tar." in one.file), None)
        if listed is None:
            continue
        pin = _pin(source, other, listed)
        if fetch.missing([pin], mirrors=mirrors, root=root):
            record["listed"] = record["listed"] or other
            continue
        fetch.ensure([pin], cache=cas, mirrors=lambda: mirrors, root=root, title=f"fetching {listed.file}")
        record |= {"version": other, "sha256": pin.sha256, "size": pin.size}
        found = changelog.read(cas.read(pin.sha256, pin.size) or b"", where=listed.file)
        break
    files.write_atomically(build / _RECORD, json.dumps({**_load(build), source.pin.name: record}).encode())
    return Newer(asked=now, changelog=found, listed=record["listed"])


def _pin(source: Source, version: str, listed: Found) -> Pin:
    return Pin(
        name=source.pin.name, version=version, sha256=listed.sha256, size=listed.size, origin=listed.origin,
        lock="the archive's index",
    )  # fmt: skip


def _load(build: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((build / _RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
