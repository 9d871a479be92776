# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The pins: sources.lock and toolchain.lock, written by `./doit lock`, and whether they answer their .toml.

Everything is parsed once into frozen dataclasses; any doubt is a UserError that names file and key. A lock
never holds a host: where a file of the Debian archive or of PyPI comes from is decided on the machine that
fetches it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import Path

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import wanted
from tools.pipeline.sources.wanted import NO_OLDER, Architecture, Kind, Older, Toolchain, WantedSource

SOURCES_LOCK = "recipes/sources.lock"
TOOLCHAIN_LOCK = "recipes/toolchain.lock"

_HINT = "run ./doit lock"
_RESTORE = "bring the file back from version control"
"""For what no command reads, `./doit lock` included."""
_HEADER = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Written by ./doit lock from {origin}; do not edit.
"""

Fields = Mapping[str, str | int | Sequence[str]]
"""A pin as the keys and values of its table, in a lock and in a manifest."""


class Archive(StrEnum):
    """The two parts of the Debian archive, each with mirrors of its own."""

    DEBIAN = "debian"
    SECURITY = "debian-security"


@dataclass(frozen=True, kw_only=True)
class PoolFile:
    """A file of the Debian archive: its path below any mirror's base URL."""

    archive: Archive
    path: str


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A file of PyPI or of another index that the machine's own pip knows."""

    package: str
    version: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Urls:
    """Full URLs, tried in turn."""

    urls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file of the checkout, relative to its root."""

    path: str


Origin = PoolFile | Wheel | Urls | LocalFile


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One file whose bytes are fixed. `size` is in bytes, `lock` the file that pins it."""

    name: str
    version: str
    sha256: str
    size: int
    origin: Origin
    lock: str

    @property
    def where(self) -> str:
        """The pin's place, for error messages."""
        return f"{self.lock}: {self.name}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """An entry of sources.lock: what was asked for, and the pin that answers it.

    The pin has another version where no mirror had the one that was asked for, or where a series was asked for.
    """

    wanted: WantedSource
    pin: Pin

    @property
    def fallen_back(self) -> bool:
        """Whether the pin has another version than was asked for."""
        return self.pin.version != self.wanted.version


@dataclass(frozen=True, kw_only=True)
class Package:
    """One binary package of the tool trees. Two trees may have two versions of a package."""

    pin: Pin
    architecture: Architecture
    trees: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ToolchainLock:
    """toolchain.lock: the packages, and for which request they were resolved (tree → package names).

    `suites` are those of trees that have one of their own (tree → suite).
    """

    suite: str
    older: Older = NO_OLDER
    suites: tuple[tuple[str, str], ...] = ()
    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    packages: tuple[Package, ...]

    def of_tree(self, name: str) -> tuple[Package, ...]:
        """The packages of one tree, sorted by name."""
        return tuple(p for p in self.packages if name in p.trees)


def origin_of(source: WantedSource, *, pool: PoolFile | None = None) -> Origin:
    """Where a source comes from; only for a file of the Debian archive the request does not say it all."""
    match source.kind:
        case Kind.PYPI:
            return Wheel(package=source.package, version=source.version, file=source.file)
        case Kind.HTTPS:
            return Urls(urls=source.urls)
        case Kind.FILE:
            return LocalFile(path=source.path)
        case Kind.DEBIAN_SOURCE:
            assert pool is not None
            return pool


def unlocked(asked: WantedSource) -> Source:
    """A source before `./doit lock`, for a plan that nobody can build yet."""
    pin = Pin(
        name=asked.name,
        version=asked.version or asked.series,
        sha256="0" * 64,
        size=1,
        origin=Urls(urls=()),
        lock=SOURCES_LOCK,
    )
    return Source(wanted=asked, pin=pin)


# ── reading ──


def read_sources_lock(path: Path) -> tuple[Source, ...]:
    """Parse sources.lock; sorted by name."""
    top = toml_reader.load(path, shown_as=SOURCES_LOCK)
    wanted.check_schema(top)
    tables = top.tables("source")
    top.close()
    sources = tuple(sorted((read_source(table) for table in tables), key=lambda s: s.pin.name))
    _no_contradiction(((s.pin, ("sources",)) for s in sources), file=SOURCES_LOCK)
    return sources


def read_source(table: toml_reader.Table) -> Source:
    """A source from its table; every doubt is a UserError."""
    name = table.string("name", pattern=wanted.NAME, says="a name")
    asked = wanted.read_source(table, name)
    pool, version = None, asked.version
    if asked.kind is Kind.DEBIAN_SOURCE:
        pool = _pool_file(table)
        if not pool.path.endswith(f"/{asked.file}"):
            raise table.error("path", f"does not end in {asked.file!r}")
        if table.has("asked_version") or table.has("asked_series"):
            asked = wanted.read_instead(table, asked)
    origin = origin_of(asked, pool=pool)
    pin = _pin(table, name=name, version=version, origin=origin, lock=SOURCES_LOCK)
    table.close()
    return Source(wanted=asked, pin=pin)


def read_toolchain_lock(path: Path) -> ToolchainLock:
    """Parse toolchain.lock; packages are sorted by name and version."""
    top = toml_reader.load(path, shown_as=TOOLCHAIN_LOCK)
    wanted.check_schema(top)
    suite, older = wanted.read_suites(top)
    trees = top.table("trees")
    asked: list[tuple[str, tuple[str, ...]]] = []
    suites: list[tuple[str, str]] = []
    for name in sorted(trees.keys()):
        table = trees.table(name)
        asked.append((name, wanted.read_package_names(table)))
        if of_its_own := wanted.read_tree_suite(table):
            suites.append((name, of_its_own))
        table.close()
    known = tuple(name for name, _ in asked)
    tables = top.tables("package")
    top.close()
    packages = tuple(sorted((read_package(table, known) for table in tables), key=package_order))
    _no_contradiction(((p.pin, p.trees) for p in packages), file=TOOLCHAIN_LOCK)
    for name in known:
        if not any(name in p.trees for p in packages):
            raise UserError("has no package", where=f"{TOOLCHAIN_LOCK}: trees.{name}", hint=_RESTORE)
    return ToolchainLock(suite=suite, older=older, suites=tuple(suites), wanted=tuple(asked), packages=packages)


def read_package(table: toml_reader.Table, known: Sequence[str]) -> Package:
    """A package from its table; `known` are the trees that it may be in."""
    name = table.string("name", pattern=wanted.PACKAGE, says="a Debian package name")
    version = table.string("version", pattern=wanted.VERSION, says="a version")
    architecture = table.choice("architecture", Architecture)
    trees = table.strings("trees")
    for i, tree in enumerate(trees):
        if tree not in known or tree in trees[:i]:
            raise table.error(f"trees[{i}]", f"{tree!r} is not a tree of this lock, or is there twice")
    origin = _pool_file(table)
    file = origin.path.rpartition("/")[2]
    if not file.startswith(f"{name}_") or not file.endswith(f"_{architecture}.deb"):
        raise table.error("path", f"{file!r} is not a package file {name}_VERSION_{architecture}.deb")
    pin = _pin(table, name=name, version=version, origin=origin, lock=TOOLCHAIN_LOCK)
    table.close()
    return Package(pin=pin, architecture=architecture, trees=trees)


def package_order(package: Package) -> tuple[str, str]:
    """What packages are sorted by."""
    return package.pin.name, package.pin.version


def _pool_file(table: toml_reader.Table) -> PoolFile:
    path = wanted.read_relative(table, "path", start="pool/")
    return PoolFile(archive=table.choice("archive", Archive), path=path)


def _pin(table: toml_reader.Table, *, name: str, version: str, origin: Origin, lock: str) -> Pin:
    bytes_ = wanted.read_promise(table)
    return Pin(name=name, version=version, sha256=bytes_.sha256, size=bytes_.size, origin=origin, lock=lock)


def _no_contradiction(pins: Iterable[tuple[Pin, Sequence[str]]], *, file: str) -> None:
    """One pin a name in each tree, one size a digest."""
    names: set[tuple[str, str]] = set()
    digests: dict[str, Pin] = {}
    for pin, trees in pins:
        for tree in trees:
            if (pin.name, tree) in names:
                raise UserError("pinned twice", where=f"{file}: {pin.name}", hint=f"keep one entry, or {_RESTORE}")
            names.add((pin.name, tree))
        other = digests.setdefault(pin.sha256, pin)
        if other.size != pin.size:
            raise UserError(f"same sha256 as {other.name} but another size", where=f"{file}: {pin.name}")


# ── whether they answer ──


def check_fresh(root: Path, *, sources: Sequence[Source], toolchain: Toolchain, locked: ToolchainLock) -> None:
    """Raise UserError when a lock does not answer the hand-written request any more; reads sources.toml."""
    by_name = {source.wanted.name: source for source in sources}
    for want, promise in wanted.read_sources(root / wanted.SOURCES_TOML).items():
        have = by_name.pop(want.name, None)
        if have is None:
            raise UserError("is not locked", where=f"{wanted.SOURCES_TOML}: source.{want.name}", hint=_HINT)
        _check_answers(want, promise, have)
    for name in by_name:
        raise UserError("sources.toml no longer asks for it", where=f"{SOURCES_LOCK}: {name}", hint=_HINT)
    for key in ("suite", "older.suite", "older.packages"):
        asked, locked_for = attrgetter(key)(toolchain), attrgetter(key)(locked)
        if asked != locked_for:
            where = f"{TOOLCHAIN_LOCK}: {key}"
            raise UserError(f"is for {_shown(locked_for)}, not {_shown(asked)}", where=where, hint=_HINT)
    trees = dict(locked.wanted)
    for tree in toolchain.trees:
        where = f"{TOOLCHAIN_LOCK}: trees.{tree.name}"
        packages = trees.pop(tree.name, None)
        hint = f"{_HINT} --only {tree.name}"
        if packages is None:
            raise UserError("toolchain.toml asks for this tree, which is not locked", where=where, hint=hint)
        if packages != tree.packages or dict(locked.suites).get(tree.name, "") != tree.suite:
            what = "was resolved for other packages than toolchain.toml asks for"
            raise UserError(what, where=where, hint=hint)
    for name in trees:
        where = f"{TOOLCHAIN_LOCK}: trees.{name}"
        raise UserError("toolchain.toml no longer has this tree", where=where, hint=_HINT)


def _check_answers(want: WantedSource, promise: wanted.Promise | None, have: Source) -> None:
    where, hint = f"{SOURCES_LOCK}: {want.name}", f"{_HINT} --only {want.name}"
    for field in ("kind", "version", "series", "licence", "package", "file", "urls", "path", "suite"):
        asked, locked = getattr(want, field), getattr(have.wanted, field)
        if asked != locked:
            what = f"its {field} is {_shown(locked)}, sources.toml asks for {_shown(asked)}"
            raise UserError(what, where=where, hint=hint)
    if promise not in {None, wanted.Promise(sha256=have.pin.sha256, size=have.pin.size)}:
        raise UserError("has another sha256 or size than sources.toml says", where=where, hint=hint)


def _shown(value: str | tuple[str, ...]) -> str:
    return (value if isinstance(value, str) else " ".join(value)) or "none"


# ── writing ──


def source_fields(source: Source) -> Fields:
    """The table of a source."""
    asked = {key: getattr(source.wanted, key) for key in ("name", "version", "licence")}
    asked |= {"kind": source.wanted.kind.value}
    keys = ("package", "file", "urls", "path", "suite")
    asked |= {key: value for key in keys if (value := getattr(source.wanted, key))}
    if source.fallen_back and isinstance(source.pin.origin, PoolFile):
        key = "series" if source.wanted.series else "version"
        asked |= {f"asked_{key}": getattr(source.wanted, key), "asked_file": source.wanted.file}
        asked |= {"version": source.pin.version, "file": source.pin.origin.path.rpartition("/")[2]}
    return {**asked, **_pin_fields(source.pin)}


def package_fields(package: Package, *, trees: Sequence[str] | None = None) -> Fields:
    """The table of a package; `trees` in place of those that it is in."""
    return {
        "name": package.pin.name,
        "version": package.pin.version,
        "architecture": package.architecture.value,
        "trees": tuple(trees or package.trees),
        **_pin_fields(package.pin),
    }


def _pin_fields(pin: Pin) -> Fields:
    place: Fields = {}
    if isinstance(pin.origin, PoolFile):
        place = {"archive": pin.origin.archive.value, "path": pin.origin.path}
    return {**place, "size": pin.size, "sha256": pin.sha256}


def render_sources(sources: Iterable[Source]) -> str:
    """The text of sources.lock: sorted by name, the same for the same pins."""
    text = _HEADER.format(origin="sources.toml") + f"schema = {wanted.SCHEMA}\n"
    return text + "".join(_block("[[source]]", source_fields(s)) for s in sorted(sources, key=lambda s: s.pin.name))


def render_toolchain(locked: ToolchainLock) -> str:
    """The text of toolchain.lock: sorted by name, the same for the same pins."""
    text = _HEADER.format(origin="toolchain.toml")
    text += f'schema = {wanted.SCHEMA}\nsuite = "{locked.suite}"\n'
    if locked.older.suite:
        text += _block("[older]", {"suite": locked.older.suite, "packages": locked.older.packages})
    text += "\n# What the trees were resolved for.\n[trees]\n"
    for name, names in sorted(locked.wanted):
        suite = {"suite": dict(locked.suites)[name]} if name in dict(locked.suites) else {}
        text += _block(f"[trees.{name}]", {**suite, "packages": names}).removeprefix("\n")
    return text + "".join(_block("[[package]]", package_fields(p)) for p in sorted(locked.packages, key=package_order))


def _value(value: str | int | Sequence[str]) -> str:
    """TOML for a value; for the strings that the readers let through, JSON's notation is TOML's."""
    if isinstance(value, (str, int)):
        return json.dumps(value, ensure_ascii=False)
    return "[" + ", ".join(json.dumps(item, ensure_ascii=False) for item in value) + "]"


def _block(header: str, fields: Fields) -> str:
    return f"\n{header}\n" + "".join(f"{key} = {_value(value)}\n" for key, value in fields.items())
