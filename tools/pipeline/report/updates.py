# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an update of the pins fixes, or would fix: a line each, for whoever pins."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.report import newer, states
from tools.pipeline.report.changelog import Changelog
from tools.pipeline.report.kernel_list import KernelList, number
from tools.pipeline.sources.apt import Apt
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import Pin, Source
from tools.pipeline.sources.wanted import upstream

_NAMED = 6
_PARTS = re.compile(
    r"(?:\[x86[^\]]*\] |fs/|net/|drivers/|kernel/|crypto/)?"
    r"(?:x86|mm|virtio|vhost|swiotlb|dma|sev|coco|tsm|acpi|pci|block|dm|erofs|overlay|ovl|fuse|virtiofs|9p|vsock"
    r"|crypto|lib|sched|futex|rseq|fs|exec|binfmt|mount|proc|sysfs|tmpfs|shmem|pidfs|af_unix|unix|tcp|udp|ip|ipv4|ipv6"
    r"|inet|packet|net|netlink|tty|hwrng|random|seccomp|landlock|cgroup|memcg|posix|timers|time|rcu|workqueue)"
    r"\b[^:]*:",
    re.IGNORECASE,
)
"""A subject that begins with the name of code that is in a guest of ours: what a person looks at first, no verdict."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where changelogs are taken from, and kept. `fetch` brings pins into the cache."""

    apt: Apt
    mirrors: Mirrors
    root: Path
    build: Path
    cas: Cas
    fetch: Callable[[list[Pin]], None]


def lines(
    place: Place,
    names: Sequence[str],
    *,
    now: Sequence[Source],
    before: Sequence[Source] = (),
    listed: KernelList | None = None,
    every: bool = False,
) -> list[str]:
    """Of each component in `names`: what the step from the pins `before` to `now` fixes, and what a newer one would.

    `listed` is the kernel's own list, for kernels without a changelog. `every`: all CVEs, a line each, below it.
    The index that `place.apt` asks must be there. BuildError when a mirror does not answer.
    """
    found = []
    for name in names:
        source, old = newer.packaging(now, name), newer.packaging(before, name)
        if source is None:
            found += _without_changelog(name, now, before, listed, every=every)
            continue
        place.fetch([one.pin for one in (source, old) if one is not None])
        pinned = newer.pinned(place.cas, source)
        if old is not None and old.pin.version != source.pin.version:
            found += _changelogs(newer.pinned(place.cas, old), pinned, "fixes", every=every)
        asked = newer.ask(place.apt, place.mirrors, source, root=place.root, build=place.build, cas=place.cas)
        if asked.listed:
            found.append(f"{source.wanted.package} {asked.listed}: listed, but no mirror has its changelog")
        if asked.changelog is None and not asked.listed:
            found.append(f"{source.wanted.package} {source.pin.version}: the mirrors have nothing newer")
        elif asked.changelog is not None:
            found += _changelogs(pinned, asked.changelog, "would fix", every=every)
    return found


def _changelogs(old: Changelog, new: Changelog, word: str, *, every: bool) -> list[str]:
    titles = {cve: new.cves[cve].subject for cve in states.update(old, new)}
    return _lines(f"{old.package} {old.version} → {new.version} {word}", titles, "its changelog", every=every)


def _without_changelog(
    name: str, now: Sequence[Source], before: Sequence[Source], listed: KernelList | None, *, every: bool
) -> list[str]:
    """Of a kernel whose packaging is not pinned: by the kernel's own list, if there is one."""
    new, old = (next((s.pin.version for s in some if s.pin.name == name), "") for some in (now, before))
    if not new or not old or new == old:
        return []
    what = f"{name} {old} → {new}"
    first, last = number(upstream(old)), number(upstream(new))
    if listed is None or first is None or last is None:
        return [f"{what}: no changelog of it is pinned; --kernel-list FOLDER says what it fixes"]
    fixed = [r for r in listed.records.values() if r.affects(first) is True and r.affects(last) is False]
    titles = {r.cve: r.title for r in fixed if r.cve not in listed.rejected}
    return _lines(f"{what} fixes", {cve: titles[cve] for cve in states.newest_first(titles)}, "the list", every=every)


def _lines(what: str, titles: Mapping[str, str], who: str, *, every: bool) -> list[str]:
    if not titles:
        return [f"{what} no CVE that {who} names"]
    ours = [cve for cve, title in titles.items() if _PARTS.match(title)]
    more = f" and {len(ours) - _NAMED} more" if len(ours) > _NAMED else ""
    named = f": {', '.join(ours[:_NAMED])}{more}" if ours else ""
    said = f"{what} {len(titles)} CVEs, {len(ours) or 'none'} of parts that a guest has by its name{named}"
    if not every:
        return [f"{said} (--all lists them)"]
    return [said, *(f"   {cve}  {title}" for cve, title in titles.items())]
