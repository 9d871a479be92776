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
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import fetch, pins, pypi, wanted
from tools.pipeline.sources.apt import Apt, Found
from tools.pipeline.sources.download import Failure
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import (
    Archive,
    LocalFile,
    Origin,
    Package,
    Pin,
    PoolFile,
    Source,
    ToolchainLock,
    Urls,
    Wheel,
)
from tools.pipeline.sources.wanted import Architecture, Kind, Promise, Toolchain, WantedSource, WantedTree

Confirm = Callable[[Sequence[str]], None]
"""Shows a person lines about bytes that nothing vouches for; raises UserError to refuse them."""


@dataclass(frozen=True, kw_only=True)
class Locks:
    """Both locks, resolved or read."""

    sources: tuple[Source, ...]
    toolchain: ToolchainLock

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Every pinned file."""
        return (*(s.pin for s in self.sources), *(p.pin for p in self.toolchain.packages))


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
    old = _read(root, strict=bool(only))
    names = _chosen(only, asked, toolchain, old)
    job = _Resolver(
        root=root,
        apt=Apt(
            folder=folder,
            suite=toolchain.suite,
            older=toolchain.older,
            architecture=toolchain.architecture,
            mirrors=mirrors,
        ),
        mirrors=mirrors,
        old=old,
        fill_in=bool(only),
    )
    trees = [tree for tree in toolchain.trees if tree.name in names]
    resolved = [want for want in asked if want.name in names]
    if trees or any(want.kind is Kind.DEBIAN_SOURCE for want in resolved):
        with ui.working("asking apt for the archive's index"):
            job.apt.update()
    memory = folder / "resolved"
    if not only and memory.is_file() and memory.read_bytes() == _circumstances(root, job.apt, asked):
        return []
    with ui.working(f"resolving {len(resolved)} sources and {len(trees)} trees"):
        sources = [job.source(want, promise) if want in resolved else job.kept(want) for want, promise in asked.items()]
        packages = job.packages(toolchain, trees)
    requests = tuple((tree.name, tree.packages) for tree in toolchain.trees)
    new = Locks(
        sources=tuple(sources),
        toolchain=ToolchainLock(suite=toolchain.suite, older=toolchain.older, wanted=requests, packages=packages),
    )
    for note in job.notes:
        ui.line(f"   note: {note}")
    fetch.refuse(job.missing(s.pin for s in new.sources))
    changes = _changes(old, new)
    if not check:
        if job.unvouched:
            confirm(job.unvouched)
        files.write_if_changed(root / pins.SOURCES_LOCK, pins.render_sources(new.sources).encode())
        files.write_if_changed(root / pins.TOOLCHAIN_LOCK, pins.render_toolchain(new.toolchain).encode())
        if not only and not job.notes:
            files.write_atomically(memory, _circumstances(root, job.apt, asked))
    return changes


def _circumstances(root: Path, apt: Apt, asked: Iterable[WantedSource]) -> bytes:
    """All that decides what the pins are: while it stays as it was after `./doit lock`, nothing changes."""
    names = [wanted.SOURCES_TOML, wanted.TOOLCHAIN_TOML, pins.SOURCES_LOCK, pins.TOOLCHAIN_LOCK]
    names += [want.path for want in asked if want.kind is Kind.FILE]
    digests = {name: files.of_file(root / name) if (root / name).is_file() else "" for name in names}
    return json.dumps({**digests, "index": apt.fingerprint()}).encode()


def _read(root: Path, *, strict: bool) -> Locks:
    """What is pinned now. Unless `strict`, a lock that is absent or broken pins nothing: it will be replaced."""
    sources: tuple[Source, ...] = ()
    toolchain = ToolchainLock(suite="", wanted=(), packages=())
    with suppress(*([] if strict else [UserError])):
        sources = pins.read_sources_lock(root / pins.SOURCES_LOCK)
    with suppress(*([] if strict else [UserError])):
        toolchain = pins.read_toolchain_lock(root / pins.TOOLCHAIN_LOCK)
    return Locks(sources=sources, toolchain=toolchain)


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
    before = old.toolchain.older or toolchain.older
    for have, want in ((old.toolchain.suite, toolchain.suite), (before, toolchain.older)):
        if have == want:
            continue
        what = f"the locked suite is {have}, toolchain.toml asks for {want or 'none'}"
        raise UserError(what, where="--only", hint="leave --only out: another suite changes every pin")
    have_sources = {source.wanted for source in old.sources}
    have_trees = dict(old.toolchain.wanted)
    changed = [name for name, want in sources.items() if want not in have_sources]
    changed += [name for name, tree in trees.items() if have_trees.get(name) != tree.packages]
    left_out = sorted(set(changed) - set(only))
    if left_out:
        names = ",".join(sorted({*only, *left_out}))
        raise UserError(f"{', '.join(left_out)} changed too", where="--only", hint=f"give --only {names}")
    return set(only)


def _check_licence(want: WantedSource) -> None:
    where = f"{wanted.SOURCES_TOML}: source.{want.name}.licence"
    try:
        right = canonicalize_license_expression(want.licence)
    except InvalidLicenseExpression as error:
        raise UserError(f"{want.licence!r} is not an SPDX license expression: {error}", where=where) from None
    if right != want.licence:
        raise UserError(f"SPDX spells it {right!r}, not {want.licence!r}", where=where)


@dataclass(kw_only=True)
class _Resolver:
    """One run: what it found out beside the pins is in `notes` and `unvouched`.

    `fill_in`: a tree that is not locked yet takes the versions that other trees have, where the index still
    has them.
    """

    root: Path
    apt: Apt
    mirrors: Mirrors
    old: Locks
    fill_in: bool
    notes: list[str] = field(default_factory=list)
    unvouched: list[str] = field(default_factory=list)

    def kept(self, want: WantedSource) -> Source:
        """The source as it is locked."""
        return next(source for source in self.old.sources if source.wanted == want)

    def source(self, want: WantedSource, promise: Promise | None) -> Source:
        """The source resolved."""
        before = next((source for source in self.old.sources if source.wanted == want), None)
        match want.kind:
            case Kind.DEBIAN_SOURCE:
                origin, found = self._debian(want, before, promise)
            case Kind.FILE:
                path = self.root / want.path
                if not path.is_file():
                    raise UserError(f"no file {want.path}", where=_where(want))
                origin = LocalFile(path=want.path)
                found = Promise(sha256=files.of_file(path), size=path.stat().st_size)
            case Kind.PYPI:
                origin = pins.origin_of(want)
                found = _bytes_of(before) or self._look(want, origin, promise)
            case Kind.HTTPS:
                origin = pins.origin_of(want)
                found = promise or _bytes_of(before) or self._look(want, origin, promise)
        if promise not in {None, found}:
            what = f"sources.toml says sha256 {promise.sha256 if promise else ''}, the archive {found.sha256}"
            raise UserError(what, where=_where(want), hint="correct sha256 and size there, or leave them out")
        pin = _pin(want.name, want.version, found, origin, pins.SOURCES_LOCK)
        return Source(wanted=want, pin=pin)

    def _debian(self, want: WantedSource, before: Source | None, promise: Promise | None) -> tuple[Origin, Promise]:
        """As the signed index says; else as it is locked; else the file of the pool, shown to a person."""
        listed = {found.file: found for found in self.apt.source(want.package, want.version)}
        if want.file in listed:
            found = listed[want.file]
            return found.origin, Promise(sha256=found.sha256, size=found.size)
        if listed:
            what = f"{want.package} {want.version} has no file {want.file}"
            raise UserError(what, where=_where(want), hint=f"it has: {', '.join(listed)}")
        if before is not None:
            self.notes.append(f"{want.name} {want.version}: the index no longer has it; the pin stays")
            return before.pin.origin, Promise(sha256=before.pin.sha256, size=before.pin.size)
        tried = []
        for origin in _pool_places(want):
            try:
                return origin, promise or self._look(want, origin, promise)
            except BuildError as error:
                tried.append(error.what)
        known = ", ".join(self.apt.source_versions(want.package)) or "no version at all"
        what = f"{want.package} {want.version} is neither in the index nor in a pool. Tried {'; '.join(tried)}"
        raise UserError(what, where=_where(want), hint=f"the index has {known}")

    def _look(self, want: WantedSource, origin: Origin, promise: Promise | None) -> Promise:
        """Fetch and hash what no index vouches for; without a promise in sources.toml a person will be asked."""
        if isinstance(origin, Wheel):
            with pypi.scratch() as folder:
                path = pypi.download(origin, folder)
                found = Promise(sha256=files.of_file(path), size=path.stat().st_size)
        else:
            nothing = Promise(sha256="0" * 64, size=1)
            pin = _pin(want.name, want.version, nothing, origin, pins.SOURCES_LOCK)
            found = fetch.look(pin, mirrors=self.mirrors, root=self.root)
        if promise is None:
            self.unvouched.append(f"{want.name} {want.version}: {ui.size(found.size)}, sha256 {found.sha256}")
        return found

    def packages(self, toolchain: Toolchain, trees: Sequence[WantedTree]) -> tuple[Package, ...]:
        """Each tree's closure on its own; trees that are not among `trees` keep their packages."""
        resolved = {tree.name for tree in trees}
        kept = [tree.name for tree in toolchain.trees if tree.name not in resolved]
        found: dict[tuple[Pin, Architecture], list[str]] = {}
        for package in self.old.toolchain.packages:
            for name in kept:
                if name in package.trees:
                    found.setdefault((package.pin, package.architecture), []).append(name)
        prefer = {pin.name: pin.version for pin, _ in found} if self.fill_in else {}
        locked = {name for name, _ in self.old.toolchain.wanted}
        avoid: set[tuple[str, str]] = set()
        for tree in trees:
            for key in self._closure(tree, {} if tree.name in locked else prefer, avoid):
                found.setdefault(key, []).append(tree.name)
        packages = [Package(pin=p, architecture=a, trees=tuple(sorted(names))) for (p, a), names in found.items()]
        return tuple(sorted(packages, key=pins.package_order))

    def _closure(
        self, tree: WantedTree, prefer: Mapping[str, str], avoid: set[tuple[str, str]]
    ) -> list[tuple[Pin, Architecture]]:
        """What the tree needs, in the newest versions that can be fetched."""
        last: list[Failure] = []
        while True:
            try:
                answer = [_package(item) for item in self.apt.closure(tree.packages, prefer=prefer, avoid=avoid)]
            except BuildError:
                if last:
                    fetch.refuse(last)  # there is no older version: the missing file is the reason
                if not prefer:
                    raise
                self.notes.append(f"the {tree.name} tree cannot have the versions that other trees have pinned")
                prefer = {}
                continue
            missing = self.missing(pin for pin, _ in answer)
            new = [failure for failure in missing if (failure.pin.name, failure.pin.version) not in avoid]
            if missing and not new:
                fetch.refuse(missing)
            if not missing:
                return answer
            last = missing
            for failure in new:
                avoid.add((failure.pin.name, failure.pin.version))
                listed = f"{failure.pin.name} {failure.pin.version}"
                self.notes.append(f"{listed}: listed, but no mirror has the file; taking an older version")

    def missing(self, candidates: Iterable[Pin]) -> list[Failure]:
        """Those of the pins, as far as they are new, that no mirror has."""
        old = set(self.old.pins)
        # Wheels and local files were looked at when they were resolved.
        asked = [p for p in candidates if p not in old and isinstance(p.origin, (PoolFile, Urls))]
        return fetch.missing(asked, mirrors=self.mirrors, root=self.root)


def _where(want: WantedSource) -> str:
    return f"{wanted.SOURCES_TOML}: source.{want.name}"


def _bytes_of(source: Source | None) -> Promise | None:
    return Promise(sha256=source.pin.sha256, size=source.pin.size) if source else None


def _pin(name: str, version: str, found: Promise, origin: Origin, file: str) -> Pin:
    return Pin(name=name, version=version, sha256=found.sha256, size=found.size, origin=origin, lock=file)


def _pool_places(want: WantedSource) -> list[PoolFile]:
    """Where a file of a source package lies (dak: the first letter, or four of a library's name)."""
    prefix = want.package[:4] if want.package.startswith("lib") else want.package[0]
    tail = f"main/{prefix}/{want.package}/{want.file}"
    return [
        PoolFile(archive=Archive.DEBIAN, path=f"pool/{tail}"),
        PoolFile(archive=Archive.SECURITY, path=f"pool/updates/{tail}"),
    ]


def _package(item: Found) -> tuple[Pin, Architecture]:
    match = re.fullmatch(r"([^_]+)_([^_]+)_([^_]+)\.deb", item.file)
    if match is None:
        raise BuildError(f"apt named a package file {item.file!r}")
    found = Promise(sha256=item.sha256, size=item.size)
    return _pin(match[1], match[2], found, item.origin, pins.TOOLCHAIN_LOCK), Architecture(match[3])


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
