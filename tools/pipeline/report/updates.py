# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an update of the pins fixes, or would fix: a line each, for whoever pins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.report import newer, states
from tools.pipeline.report.changelog import Changelog
from tools.pipeline.sources.apt import Apt
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import Pin, Source

_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where changelogs are taken from, and kept. `fetch` brings pins into the cache."""

    apt: Apt
    mirrors: Mirrors
    root: Path
    build: Path
    cas: Cas
    fetch: Callable[[list[Pin]], None]


def lines(place: Place, names: Sequence[str], *, now: Sequence[Source], before: Sequence[Source] = ()) -> list[str]:
    """Of each component in `names`: what the step from the pins `before` to `now` fixes, and what a newer one would.

    The index that `place.apt` asks must be there. BuildError when a mirror does not answer.
    """
    found = []
    for name in names:
        source, old = newer.packaging(now, name), newer.packaging(before, name)
        if source is None:
            continue
        place.fetch([one.pin for one in (source, old) if one is not None])
        pinned = newer.pinned(place.cas, source)
        if old is not None and old.pin.version != source.pin.version:
            found.append(_line(newer.pinned(place.cas, old), pinned, "fixes"))
        asked = newer.ask(place.apt, place.mirrors, source, root=place.root, build=place.build, cas=place.cas)
        if asked.listed:
            found.append(f"{source.wanted.package} {asked.listed}: listed, but no mirror has its changelog")
        if asked.changelog is None and not asked.listed:
            found.append(f"{source.wanted.package} {source.pin.version}: the mirrors have nothing newer")
        elif asked.changelog is not None:
            found.append(_line(pinned, asked.changelog, "would fix"))
    return found


def _line(old: Changelog, new: Changelog, word: str) -> str:
    fixed = states.update(old, new)
    if not fixed:
        return f"{old.package} {old.version} → {new.version} {word} no CVE that its changelog names"
    more = f" and {len(fixed) - _NAMED} more" if len(fixed) > _NAMED else ""
    named = ", ".join(fixed[:_NAMED])
    return f"{old.package} {old.version} → {new.version} {word} {len(fixed)} CVEs: {named}{more} (./doit cve)"
