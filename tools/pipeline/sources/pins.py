# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The pins: sources.lock and toolchain.lock, written by `./doit lock`.

Everything is parsed once into frozen dataclasses; any doubt is a UserError that names file and key. A lock
never holds a host: where a file of the Debian archive comes from is decided on the machine that fetches it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError

SOURCES_LOCK = "recipes/sources.lock"
TOOLCHAIN_LOCK = "recipes/toolchain.lock"

SCHEMA = 1
MAX_SIZE = 4 << 30  # bytes of one pinned file; a larger number is a slip, not an input of this build
# Debian Policy 5.6.1 (package names) and 5.6.12 (versions).
PACKAGE = r"[a-z0-9][a-z0-9+.\-]+"
VERSION = r"[0-9][A-Za-z0-9.+:~\-]*"
NAME = r"[a-z0-9][a-z0-9+.\-]*"
FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9.+_~\-]*"
_HTTPS = r"https://[A-Za-z0-9.\-]+(:[0-9]+)?/[!-~]+"
_LICENCE_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+\-]+)")


class Archive(StrEnum):
    """The two parts of the Debian archive, each with mirrors of its own."""

    DEBIAN = "debian"
    SECURITY = "debian-security"


class Kind(StrEnum):
    """Where a source comes from."""

    DEBIAN_SOURCE = "debian-source"
    HTTPS = "https"
    FILE = "file"


class Architecture(StrEnum):
    """The architectures that a package of the tool tree may have."""

    AMD64 = "amd64"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class PoolFile:
    """A file of the Debian archive: its path below any mirror's base URL."""

    archive: Archive
    path: str


@dataclass(frozen=True, kw_only=True)
class Urls:
    """Full URLs, tried in turn."""

    urls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file of the checkout, relative to its root."""

    path: str


Origin = PoolFile | Urls | LocalFile


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
    """An entry of sources.lock."""

    pin: Pin
    kind: Kind
    licence: str
    package: str = ""
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One binary package of the tool tree."""

    pin: Pin
    architecture: Architecture
    trees: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ToolchainLock:
    """toolchain.lock: the packages, and for which request they were resolved (tree → package names)."""

    suite: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    packages: tuple[Package, ...]

    def of_tree(self, name: str) -> tuple[Package, ...]:
        """The packages of one tree, sorted by name."""
        return tuple(p for p in self.packages if name in p.trees)


def check_schema(table: toml_reader.Table) -> None:
    """The file must be of the version that this code reads."""
    table.integer("schema", low=SCHEMA, high=SCHEMA)


def read_licence(table: toml_reader.Table) -> str:
    """An SPDX license expression; the grammar (SPDX 2.3, annex D) is checked, the identifiers are not."""
    text = table.string("licence")
    tokens: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        match = _LICENCE_TOKEN.match(text, position)
        if match is None:
            raise table.error("licence", f"{text!r} is not an SPDX license expression")
        tokens.append(match[1])
        position = match.end()
    # State machine instead of a parser: an operand is wanted, or an operator, and parentheses balance.
    depth, operand = 0, True
    for word in tokens:
        if operand and word == "(":
            depth += 1
        elif operand and word not in {")", "AND", "OR", "WITH"}:
            operand = False
        elif not operand and word == ")" and depth:
            depth -= 1
        elif not operand and word in {"AND", "OR", "WITH"}:
            operand = True
        else:
            raise table.error("licence", f"{text!r} is not an SPDX license expression (at {word!r})")
    if operand or depth:
        raise table.error("licence", f"{text!r} is not an SPDX license expression (it ends early)")
    return text


def read_relative(table: toml_reader.Table, key: str, *, start: str = "") -> str:
    """A clean relative path: no '..', no '.', no '//', nothing absolute."""
    says = f"a plain relative path{f' that begins with {start}' if start else ''}"
    text = table.string(key, pattern=r"[A-Za-z0-9._+~/\-]+", says=says)
    clean = PurePosixPath(text)
    if clean.is_absolute() or ".." in clean.parts or str(clean) != text or not text.startswith(start):
        raise table.error(key, f"{text!r} is not {says}")
    return text


def read_urls(table: toml_reader.Table) -> tuple[str, ...]:
    """The https URLs of a source."""
    urls = table.strings("urls")
    for i, url in enumerate(urls):
        if re.fullmatch(_HTTPS, url) is None:
            raise table.error(f"urls[{i}]", f"{url!r} is not an https URL")
    return urls


def read_sources_lock(path: Path) -> tuple[Source, ...]:
    """Parse sources.lock; sorted by name."""
    top = toml_reader.load(path, shown_as=SOURCES_LOCK)
    check_schema(top)
    tables = top.tables("source")
    top.close()
    sources = tuple(sorted((read_source(table) for table in tables), key=lambda s: s.pin.name))
    _no_duplicates((s.pin for s in sources), file=SOURCES_LOCK)
    return sources


def read_source(table: toml_reader.Table) -> Source:
    """A source from its table; every doubt is a UserError."""
    name = table.string("name", pattern=NAME, says="a name")
    kind = table.choice("kind", Kind)
    licence = read_licence(table)
    package = file = ""
    origin: Origin
    if kind is Kind.DEBIAN_SOURCE:
        package = table.string("package", pattern=PACKAGE, says="a Debian package name")
        file = table.string("file", pattern=FILE_NAME, says="a plain file name")
        origin = _pool_file(table)
        if not origin.path.endswith(f"/{file}"):
            raise table.error("path", f"does not end in {file!r}")
    elif kind is Kind.HTTPS:
        origin = Urls(urls=read_urls(table))
    else:
        origin = LocalFile(path=read_relative(table, "path"))
    pin = _pin(table, name=name, origin=origin, lock=SOURCES_LOCK)
    table.close()
    return Source(pin=pin, kind=kind, licence=licence, package=package, file=file)


def _pool_file(table: toml_reader.Table) -> PoolFile:
    return PoolFile(archive=table.choice("archive", Archive), path=read_relative(table, "path", start="pool/"))


def _pin(table: toml_reader.Table, *, name: str, origin: Origin, lock: str) -> Pin:
    return Pin(
        name=name,
        version=table.string("version", pattern=VERSION, says="a version"),
        sha256=table.sha256("sha256"),
        size=table.integer("size", low=1, high=MAX_SIZE),
        origin=origin,
        lock=lock,
    )


def _no_duplicates(pins: Iterable[Pin], *, file: str) -> None:
    names: set[str] = set()
    digests: dict[str, Pin] = {}
    for pin in pins:
        if pin.name in names:
            raise UserError("pinned twice", where=f"{file}: {pin.name}", hint="keep one entry or run ./doit lock")
        names.add(pin.name)
        other = digests.setdefault(pin.sha256, pin)
        if other.size != pin.size:
            raise UserError(f"same sha256 as {other.name} but another size", where=f"{file}: {pin.name}")


def read_package_names(table: toml_reader.Table) -> tuple[str, ...]:
    """The packages that a tree asks for, sorted."""
    packages = table.strings("packages")
    for i, package in enumerate(packages):
        if re.fullmatch(PACKAGE, package) is None:
            raise table.error(f"packages[{i}]", f"{package!r} is not a Debian package name")
    if len(set(packages)) != len(packages):
        raise table.error("packages", "names a package twice")
    return tuple(sorted(packages))


def read_toolchain_lock(path: Path) -> ToolchainLock:
    """Parse toolchain.lock; packages are sorted by name."""
    top = toml_reader.load(path, shown_as=TOOLCHAIN_LOCK)
    check_schema(top)
    suite = top.string("suite", pattern=r"[a-z]+", says="a Debian suite")
    trees = top.table("trees")
    wanted: list[tuple[str, tuple[str, ...]]] = []
    for name in sorted(trees.keys()):
        table = trees.table(name)
        wanted.append((name, read_package_names(table)))
        table.close()
    known = tuple(name for name, _ in wanted)
    tables = top.tables("package")
    top.close()
    packages = tuple(sorted((read_package(table, known) for table in tables), key=lambda p: p.pin.name))
    _no_duplicates((p.pin for p in packages), file=TOOLCHAIN_LOCK)
    for name in known:
        if not any(name in p.trees for p in packages):
            raise UserError("has no package", where=f"{TOOLCHAIN_LOCK}: trees.{name}", hint="run ./doit lock")
    return ToolchainLock(suite=suite, wanted=tuple(wanted), packages=packages)


def read_package(table: toml_reader.Table, known: Sequence[str]) -> Package:
    """A package from its table; `known` are the trees that it may be in."""
    name = table.string("name", pattern=PACKAGE, says="a Debian package name")
    architecture = table.choice("architecture", Architecture)
    trees = table.strings("trees")
    for i, tree in enumerate(trees):
        if tree not in known or tree in trees[:i]:
            raise table.error(f"trees[{i}]", f"{tree!r} is not a tree of this lock, or is there twice")
    origin = _pool_file(table)
    file = origin.path.rpartition("/")[2]
    if not file.startswith(f"{name}_") or not file.endswith(f"_{architecture}.deb"):
        raise table.error("path", f"{file!r} is not a package file {name}_VERSION_{architecture}.deb")
    pin = _pin(table, name=name, origin=origin, lock=TOOLCHAIN_LOCK)
    table.close()
    return Package(pin=pin, architecture=architecture, trees=trees)
