# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is wanted → pins: asked of the archive's signed index, and only what can be fetched.

An index can announce what no mirror has. Then the newest listed version that can be fetched is taken, and said so;
that this may lead behind what is pinned already is for the caller to look at.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class Locks:
    """Both locks, resolved or read."""

    sources: tuple[Source, ...]
    toolchain: ToolchainLock

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Every pinned file."""
        return (*(s.pin for s in self.sources), *(p.pin for p in self.toolchain.packages))


@dataclass(kw_only=True)
class Resolver:
    """One run: what it found out beside the pins is in `notes`, `unvouched` and `absent`.

    `fill_in`: a tree that is not locked yet takes the versions that other trees have, where the index still
    has them.
    """

    root: Path
    apt: Apt
    mirrors: Mirrors
    old: Locks
    asked: Mapping[WantedSource, Promise | None]
    fill_in: bool
    others: dict[str, Apt] = field(default_factory=dict)
    """By suite, for trees that have one of their own."""
    notes: list[str] = field(default_factory=list)
    unvouched: list[str] = field(default_factory=list)
    absent: list[Pin] = field(default_factory=list)
    """Listed, but on no mirror: whatever was pinned in their place is looked at again when they come."""
    _taken: dict[tuple[str, str], str] = field(default_factory=dict)
    _files: dict[tuple[str, str], list[Found]] = field(default_factory=dict)

    def kept(self, want: WantedSource) -> Source:
        """The source as it is locked."""
        return next(source for source in self.old.sources if source.wanted == want)

    def source(self, want: WantedSource, promise: Promise | None) -> Source:
        """The source resolved."""
        before = next((source for source in self.old.sources if source.wanted == want), None)
        version = want.version
        match want.kind:
            case Kind.DEBIAN_SOURCE:
                version, origin, found = self._debian(want, before, promise)
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
        _check_promise(want, promise, found)
        return Source(wanted=want, pin=_pin(want.name, version, found, origin, pins.SOURCES_LOCK))

    def _debian(
        self, want: WantedSource, before: Source | None, promise: Promise | None
    ) -> tuple[str, Origin, Promise]:
        """Version, place and bytes: as the signed index says; else as locked; else of the pool, shown to a person."""
        if want.series:
            pin = self._listed(want, version) if (version := self._version(want)) else self._locked(want)
        elif want.version in self.apt.source_versions(want.package):
            pin = self._listed(want, self._version(want))
        elif before is not None:
            pin = before.pin
            self.notes.append(f"{want.name} {want.version}: not in the index; {pin.version} stays pinned")
        else:
            return want.version, *self._pool(want, promise)
        return pin.version, pin.origin, Promise(sha256=pin.sha256, size=pin.size)

    def _version(self, want: WantedSource) -> str:
        """The version that is taken for all files of this source package, so that they fit together."""
        key = want.group
        if key not in self._taken:
            group = [other for other in self.asked if other.group == key]
            self._taken[key] = self._newest_of_series(group) if want.series else self._newest(group)
        return self._taken[key]

    def _locked(self, want: WantedSource) -> Pin:
        """What is pinned under that name, in whatever version."""
        return next(source.pin for source in self.old.sources if source.pin.name == want.name)

    def _newest_of_series(self, group: Sequence[WantedSource]) -> str:
        """The newest version of a series whose files a mirror really has; empty: what is pinned stays.

        Never one before what is pinned: an index may have lost it, and a mirror may hold back what is newer.
        """
        first = group[0]
        names, package, series = {want.name for want in group}, first.package, first.series
        pinned = {source.pin.name: source.pin.version for source in self.old.sources if source.pin.name in names}
        # A file that was not asked for before is in no lock: then there is nothing that could stay.
        before = pinned[first.name] if len(pinned) == len(group) and len(set(pinned.values())) == 1 else ""
        if before and not wanted.in_series(before, series):
            before = ""
        listed = [v for v in self.apt.newest_first(self.apt.source_versions(package)) if wanted.in_series(v, series)]
        tried: list[tuple[str, Failure]] = []
        for version in listed:
            if before and self.apt.precedes(version, before):
                break
            if not self._has(group, version):
                continue
            missing = self.missing(self._listed(want, version) for want in group)
            if not missing:
                self._note_absent(first, tried, f"taking {version}, the newest that can be fetched")
                return version
            self.absent += [failure.pin for failure in missing]
            tried.append((version, missing[0]))
        if not before:
            if tried:
                fetch.refuse((failure for _, failure in tried), also=f"nor any other version of {series}")
            known = ", ".join(self.apt.newest_first(self.apt.source_versions(package))) or "no version at all"
            what = f"the index has no {package} of series {series} with all files"
            raise UserError(what, where=_where(first), hint=f"it has {known}")
        if tried:
            self._note_absent(first, tried, f"{before} stays pinned")
        else:
            self.notes.append(f"{first.name}: the index has nothing of {series} from {before} on, which stays pinned")
        return ""

    def _note_absent(self, want: WantedSource, tried: Sequence[tuple[str, Failure]], then: str) -> None:
        if tried:
            versions = ", ".join(version for version, _ in tried)
            self.notes.append(
                f"{want.package} {versions}: listed, but no mirror has the file ({_answers(tried[0][1])}); {then}"
            )

    def _newest(self, group: Sequence[WantedSource]) -> str:
        """The version that is asked for; if it is on no mirror, the newest listed one that is."""
        first = group[0]
        failures = self.missing(self._listed(want, first.version) for want in group)
        if not failures:
            return first.version
        if any(self.asked[want] for want in group):
            fetch.refuse(failures)  # sources.toml names the bytes, so no others will do
        self.absent += [failure.pin for failure in failures]
        for version in self.apt.newest_first(self.apt.source_versions(first.package)):
            if version == first.version or not self._has(group, version):
                continue
            missing = self.missing(self._listed(want, version) for want in group)
            if not missing:
                self.notes.append(
                    f"{first.package} {first.version}: listed, but no mirror has the file "
                    f"({_answers(failures[0])}); taking {version}, the newest that can be fetched"
                )
                return version
            self.absent += [failure.pin for failure in missing]
        fetch.refuse(failures, also="nor any other version that the index lists")
        raise AssertionError(failures)  # there are some

    def _has(self, group: Sequence[WantedSource], version: str) -> bool:
        listed = {found.file for found in self._source(group[0].package, version)}
        return all(file_of(want, version) in listed for want in group)

    def _source(self, package: str, version: str) -> list[Found]:
        """What the index has of a version; apt takes a second to say so."""
        if (package, version) not in self._files:
            self._files[package, version] = self.apt.source(package, version)
        return self._files[package, version]

    def _listed(self, want: WantedSource, version: str) -> Pin:
        """What the signed index says about the file in this version."""
        listed = {found.file: found for found in self._source(want.package, version)}
        file = file_of(want, version)
        if file not in listed:
            what = f"{want.package} {version} has no file {file}"
            raise UserError(what, where=_where(want), hint=f"it has: {', '.join(listed)}")
        found = listed[file]
        promise = Promise(sha256=found.sha256, size=found.size)
        return _pin(want.name, version, promise, found.origin, pins.SOURCES_LOCK)

    def _pool(self, want: WantedSource, promise: Promise | None) -> tuple[Origin, Promise]:
        """The file of a version that the index has not: of the pool, shown to a person."""
        tried = []
        for origin in _pool_places(want):
            try:
                return origin, promise or self._look(want, origin, promise)
            except BuildError as error:
                tried.append(error.what)
        known = ", ".join(self.apt.newest_first(self.apt.source_versions(want.package))) or "no version at all"
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
        # Versions of another suite are none of this tree's.
        suites = {tree.name: tree.suite for tree in toolchain.trees}
        prefer: dict[str, dict[str, str]] = {suite: {} for suite in suites.values()}
        for (pin, _), names in found.items() if self.fill_in else ():
            for name in names:
                prefer[suites[name]][pin.name] = pin.version
        locked = {name for name, _ in self.old.toolchain.wanted}
        gone: list[Failure] = []
        for tree in trees:
            for key in self._closure(tree, {} if tree.name in locked else prefer[tree.suite], gone):
                found.setdefault(key, []).append(tree.name)
        packages = [Package(pin=p, architecture=a, trees=tuple(sorted(names))) for (p, a), names in found.items()]
        return tuple(sorted(packages, key=pins.package_order))

    def _closure(
        self, tree: WantedTree, prefer: Mapping[str, str], gone: list[Failure]
    ) -> list[tuple[Pin, Architecture]]:
        """What the tree needs, in the newest versions that can be fetched and fit together.

        `gone` is what no mirror has, as the trees before have found out; more is added to it.
        """
        # What is locked fits together: the last resort where newer versions cannot all be had.
        locked = {p.pin.name: p.pin.version for p in self.old.toolchain.of_tree(tree.name)}
        before = len(gone)
        apt = self.others[tree.suite] if tree.suite else self.apt
        while True:
            avoid = {key for failure in gone for key in _keys(failure)}
            try:
                answer = [_package(item) for item in apt.closure(tree.packages, prefer=prefer, avoid=avoid)]
            except BuildError:
                if prefer and prefer != locked:
                    self.notes.append(f"the {tree.name} tree cannot have the versions that other trees have pinned")
                    prefer = {}
                elif gone and locked and not prefer:
                    prefer = locked
                else:
                    fetch.refuse(gone, also=f"and apt finds no other set of packages for the {tree.name} tree")
                    raise
                continue
            missing = self.missing(pin for pin, _ in answer)
            new = [failure for failure in missing if _keys(failure)[0] not in avoid]
            if missing and not new:
                fetch.refuse(missing)
            if not missing:
                self.absent += [failure.pin for failure in gone[before:]]
                self._note(tree, gone, before, answer)
                return answer
            gone += new

    def _note(
        self, tree: WantedTree, gone: Sequence[Failure], before: int, answer: Iterable[tuple[Pin, Architecture]]
    ) -> None:
        """Say what the tree has in an older version, or not at all; the first `before` are other trees' finds."""
        taken = {pin.name: pin.version for pin, _ in answer}
        for number, failure in enumerate(gone):
            name = failure.pin.name
            # Nobody knows whether this tree would have had it, had another not found out.
            if number < before and not (name in taken and self.apt.precedes(taken[name], failure.pin.version)):
                continue
            instead = f"taking {taken[name]}" if name in taken else "doing without"
            self.notes.append(
                f"{name} {failure.pin.version} ({tree.name} tree): listed, but no mirror has the file "
                f"({_answers(failure)}); {instead}"
            )

    def missing(self, candidates: Iterable[Pin]) -> list[Failure]:
        """Those of the pins, as far as they are new, that no mirror has; BuildError when a mirror does not say."""
        old = set(self.old.pins)
        # Wheels and local files were looked at when they were resolved.
        asked = [p for p in candidates if p not in old and isinstance(p.origin, (PoolFile, Urls))]
        failures = fetch.missing(asked, mirrors=self.mirrors, root=self.root)
        # No answer is no reason to take another version.
        fetch.refuse(failure for failure in failures if not failure.final)
        return failures


def file_of(want: WantedSource, version: str) -> str:
    """What a source's file is called in a version."""
    if not want.series:
        return named(want.file, want.version, version)
    whole = version.partition(":")[2] or version
    return want.file.replace("{upstream}", wanted.upstream(version)).replace("{version}", whole)


def named(file: str, version: str, other: str) -> str:
    """What a file of a Debian source package is called in another version (Debian Policy 5.6.12: no epoch)."""
    name, _, rest = file.partition("_")
    for old, new in zip(_spellings(version), _spellings(other), strict=True):
        if rest.startswith(f"{old}."):
            return f"{name}_{new}{rest.removeprefix(old)}"
    return file


def _spellings(version: str) -> tuple[str, str]:
    """The version as the packaging's files have it, and as the upstream archive has it."""
    return version.partition(":")[2] or version, wanted.upstream(version)


def _keys(failure: Failure) -> list[tuple[str, str]]:
    """What apt is to avoid where a package is on no mirror: the package, and all others of its source.

    They go together: apt, which chooses versions first, would not find older ones.
    """
    assert isinstance(failure.pin.origin, PoolFile)
    source = Path(failure.pin.origin.path).parent.name
    return [(failure.pin.name, failure.pin.version), (f"src:{source}", failure.pin.version)]


def _answers(failure: Failure) -> str:
    return ", ".join(dict.fromkeys(answer for _, answer in failure.answers))


def _check_promise(want: WantedSource, promise: Promise | None, found: Promise) -> None:
    if promise not in {None, found}:
        what = f"sources.toml says sha256 {promise.sha256 if promise else ''}, the archive {found.sha256}"
        raise UserError(what, where=_where(want), hint="correct sha256 and size there, or leave them out")


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
    match = re.fullmatch(rf"({wanted.PACKAGE})_({wanted.VERSION})_({'|'.join(Architecture)})\.deb", item.file)
    if match is None:
        raise BuildError(f"apt named a package file {item.file!r}")
    found = Promise(sha256=item.sha256, size=item.size)
    return _pin(match[1], match[2], found, item.origin, pins.TOOLCHAIN_LOCK), Architecture(match[3])
