# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit lock`: resolve what is wanted into pins, see that the mirrors have it, and say what changed.

sources.toml ──┐              ┌── sources.lock
               ├─ apt, pip ───┤
toolchain.toml ┘              └── toolchain.lock

What the archive's signed index describes is pinned as it says. Other bytes (PyPI, a URL, a version that the
suite's index does not have) are hashed and shown to a person first.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import fetch, pins, wanted
from tools.pipeline.sources.apt import Apt
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import Archive, Pin, PoolFile, ToolchainLock
from tools.pipeline.sources.resolver import Locks, Resolver
from tools.pipeline.sources.wanted import NO_OLDER, Kind, Toolchain, WantedSource
from tools.sev.errors import mask, printable

UNVOUCHED = "nothing vouches for these bytes but the places that they came from"
OLDER = "these are older than what is pinned now; a mirror that holds back what is newer looks just so"

Confirm = Callable[[str, Sequence[str]], None]
"""Shows a person what the matter is (one of the two above) and lines about it; raises UserError to refuse."""


def lock(
    *, root: Path, folder: Path, mirrors: Mirrors, confirm: Confirm, only: Sequence[str] = (), check: bool = False
) -> list[str]:
    """Resolve pins anew and return the changes, one line each; write the locks unless `check`.

    `only` names the sources and trees that are resolved, all by default; everything else keeps its pins.
    `folder` keeps apt's lists. Nothing is written if a pinned file is on none of the mirrors: an index may
    announce what its mirror does not have.
    """
    asked = wanted.read_sources(root / wanted.SOURCES_TOML)
    toolchain = wanted.read_toolchain(root / wanted.TOOLCHAIN_TOML)
    for want in asked:
        _check_licence(want)
    # Without these no command starts, so there are none to begin from nothing.
    old = Locks(
        sources=pins.read_sources_lock(root / pins.SOURCES_LOCK),
        toolchain=pins.read_toolchain_lock(root / pins.TOOLCHAIN_LOCK),
    )
    names = _chosen(only, asked, toolchain, old)
    apt = Apt(
        folder=folder,
        suite=toolchain.suite,
        older=toolchain.older,
        sources=wanted.source_suites(asked),
        architecture=toolchain.architecture,
        mirrors=mirrors,
    )
    job = Resolver(root=root, apt=apt, mirrors=mirrors, old=old, asked=asked, fill_in=bool(only))
    trees = [tree for tree in toolchain.trees if tree.name in names]
    # Trees of other suites: each suite has its own index, and nothing of the older packages.
    others = {
        s: replace(apt, folder=folder / s, suite=s, older=NO_OLDER, sources=())
        for s in sorted({t.suite for t in trees} - {""})
    }
    job.others.update(others)
    resolved = [want for want in asked if want.name in names]
    if trees or any(want.kind is Kind.DEBIAN_SOURCE for want in resolved):
        with ui.working("asking apt for the archive's index"):
            for index in (apt, *others.values()):
                index.update()
    memory = folder / "resolved"
    if (
        not only
        and (notes := _remembered(memory, _circumstances(root, [apt, *others.values()], asked), job)) is not None
    ):
        _show(notes)
        return []
    with ui.working(f"resolving {len(resolved)} sources and {len(trees)} trees"):
        sources = [job.source(want, promise) if want in resolved else job.kept(want) for want, promise in asked.items()]
        packages = job.packages(toolchain, trees)
    requests = tuple((tree.name, tree.packages) for tree in toolchain.trees)
    suites = tuple((tree.name, tree.suite) for tree in toolchain.trees if tree.suite)
    new = Locks(
        sources=tuple(sources),
        toolchain=ToolchainLock(
            suite=toolchain.suite, older=toolchain.older, suites=suites, wanted=requests, packages=packages
        ),
    )
    _show(job.notes)
    fetch.refuse(job.missing(s.pin for s in new.sources))
    changes = _changes(old, new)
    if not check:
        for matter, about in ((UNVOUCHED, job.unvouched), (OLDER, list(_older(old, new, apt)))):
            if about:
                confirm(matter, _shown(about))
        files.write_if_changed(root / pins.SOURCES_LOCK, pins.render_sources(new.sources).encode())
        files.write_if_changed(root / pins.TOOLCHAIN_LOCK, pins.render_toolchain(new.toolchain).encode())
        if not only:
            _remember(memory, _circumstances(root, [apt, *others.values()], asked), job)
    return _shown(changes)


def _show(notes: Iterable[str]) -> None:
    for note in _shown(notes):
        ui.line(f"   note: {note}")


def _shown(lines: Iterable[str]) -> list[str]:
    """What may quote a mirror or an index, as a terminal may have it."""
    return [printable(mask(line)) for line in lines]


def _older(old: Locks, new: Locks, apt: Apt) -> Iterator[str]:
    """What the new locks have in an older version than the old ones, and no person has asked for in it."""
    had = {source.pin.name: source.pin.version for source in old.sources}
    for source in new.sources:
        before = had.get(source.pin.name)
        if before and source.fallen_back and apt.precedes(source.pin.version, before):
            yield f"{source.pin.name} {before} → {source.pin.version}"
    for name, _ in new.toolchain.wanted:
        locked = {package.pin.name: package.pin.version for package in old.toolchain.of_tree(name)}
        for package in new.toolchain.of_tree(name):
            before = locked.get(package.pin.name)
            if before and before != package.pin.version and apt.precedes(package.pin.version, before):
                yield f"{package.pin.name} {before} → {package.pin.version} ({name} tree)"


def _remember(memory: Path, circumstances: Mapping[str, str], job: Resolver) -> None:
    absent = [{**vars(pin), "origin": vars(pin.origin)} for pin in job.absent]
    known = {"circumstances": circumstances, "notes": job.notes, "absent": absent}
    files.write_atomically(memory, json.dumps(known).encode())


def _remembered(memory: Path, circumstances: Mapping[str, str], job: Resolver) -> list[str] | None:
    """What the last run had to say, if a new one would come to the same pins; else None."""
    try:
        known = json.loads(memory.read_bytes())
        if known["circumstances"] != circumstances:
            return None
        absent = [_absent(item) for item in known["absent"]]
        notes = [str(note) for note in known["notes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of an earlier version, or half-written: no harm is done by resolving
    return notes if len(job.missing(absent)) == len(absent) else None


def _absent(item: Mapping[str, Any]) -> Pin:
    origin = PoolFile(archive=Archive(item["origin"]["archive"]), path=item["origin"]["path"])
    return Pin(**{**item, "origin": origin})


def _circumstances(root: Path, indexes: Iterable[Apt], asked: Iterable[WantedSource]) -> dict[str, str]:
    """All that decides what the pins are: while it stays as it was after `./doit lock`, nothing changes."""
    names = [wanted.SOURCES_TOML, wanted.TOOLCHAIN_TOML, pins.SOURCES_LOCK, pins.TOOLCHAIN_LOCK]
    names += [want.path for want in asked if want.kind is Kind.FILE]
    digests = {name: files.of_file(root / name) if (root / name).is_file() else "" for name in names}
    return {**digests, "index": " ".join(index.fingerprint() for index in indexes)}


def _chosen(only: Sequence[str], asked: Iterable[WantedSource], toolchain: Toolchain, old: Locks) -> set[str]:
    """The names of the sources and trees to resolve; all others must be locked as they are asked for."""
    sources = {want.name: want for want in asked}
    trees = {tree.name: tree for tree in toolchain.trees}
    known = {*sources, *trees}
    if not only:
        return known
    for name in only:
        if name not in known:
            hint = f"sources: {', '.join(sorted(sources))}; trees: {', '.join(sorted(trees))}"
            raise UserError(f"there is no source and no tree {name!r}", where="--only", hint=hint)
    # An older suite that comes in where none was touches no tree that is locked: those did without it.
    before = old.toolchain.older.suite or toolchain.older.suite
    for have, want in ((old.toolchain.suite, toolchain.suite), (before, toolchain.older.suite)):
        if have == want:
            continue
        what = f"the locked suite is {have}, toolchain.toml asks for {want or 'none'}"
        raise UserError(what, where="--only", hint="leave --only out: another suite changes every pin")
    have_sources = {source.wanted for source in old.sources}
    have_trees = dict(old.toolchain.wanted)
    changed = [name for name, want in sources.items() if want not in have_sources]
    have_suites = dict(old.toolchain.suites)
    changed += [
        name
        for name, tree in trees.items()
        if (have_trees.get(name), have_suites.get(name, "")) != (tree.packages, tree.suite)
    ]
    # Nor does another package that may come from there; but one that may not any more is to go.
    gone = set(old.toolchain.older.packages) - set(toolchain.older.packages)
    changed += [tree for p in old.toolchain.packages if p.pin.name in gone for tree in p.trees if tree in trees]
    # The files of one source package go together, so that their versions do.
    groups = {sources[name].group for name in only if name in sources}
    chosen = {*only, *(n for n, want in sources.items() if want.package and want.group in groups)}
    left_out = sorted(set(changed) - chosen)
    if left_out:
        names = ",".join(sorted({*only, *left_out}))
        raise UserError(f"{', '.join(left_out)} changed too", where="--only", hint=f"give --only {names}")
    return chosen


def _check_licence(want: WantedSource) -> None:
    where = f"{wanted.SOURCES_TOML}: source.{want.name}.licence"
    try:
        right = canonicalize_license_expression(want.licence)
    except InvalidLicenseExpression as error:
        raise UserError(f"{want.licence!r} is not an SPDX license expression: {error}", where=where) from None
    if right != want.licence:
        raise UserError(f"SPDX spells it {right!r}, not {want.licence!r}", where=where)


def _changes(old: Locks, new: Locks) -> list[str]:
    """One line for each name whose pins differ, and for each tree that came or went."""
    before, after = _by_name(old.pins), _by_name(new.pins)
    lines = []
    for where in sorted({*before, *after}):
        gone, came = (
            (before.get(where, set()) - after.get(where, set())),
            (after.get(where, set()) - before.get(where, set())),
        )
        left, right = _versions(gone), _versions(came)
        if gone and came:
            # The same version with other bytes never happens in an honest archive: it must be seen.
            what = f"{left}: OTHER BYTES OR PLACE" if left == right else f"{left} → {right}"
            lines.append(f"updated  {where[1]} {what}")
        elif came:
            lines.append(f"added    {where[1]} {right}")
        elif gone:
            lines.append(f"removed  {where[1]} {left}")
    had, has = dict(old.toolchain.wanted), dict(new.toolchain.wanted)
    lines += [f"added    tree {n} ({len(new.toolchain.of_tree(n))} packages)" for n in sorted(set(has) - set(had))]
    lines += [f"removed  tree {n}" for n in sorted(set(had) - set(has))]
    return lines


def _by_name(all_pins: Iterable[Pin]) -> dict[tuple[str, str], set[Pin]]:
    found: dict[tuple[str, str], set[Pin]] = {}
    for pin in all_pins:
        found.setdefault((pin.lock, pin.name), set()).add(pin)
    return found


def _versions(some: Iterable[Pin]) -> str:
    return ", ".join(sorted({pin.version for pin in some}))
