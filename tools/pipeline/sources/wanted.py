# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is wanted, written by hand: sources.toml and toolchain.toml."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError

SOURCES_TOML = "recipes/sources.toml"
TOOLCHAIN_TOML = "recipes/toolchain.toml"

SCHEMA = 1
MAX_SIZE = 4 << 30  # bytes of one pinned file; a larger number is a slip, not an input of this build
# Debian Policy 5.6.1 (package names) and 5.6.12 (versions).
PACKAGE = r"[a-z0-9][a-z0-9+.\-]+"
VERSION = r"[0-9][A-Za-z0-9.+:~\-]*"
NAME = r"[a-z0-9][a-z0-9+.\-]*"
SUITE = r"[a-z]+"
_SOURCE_SUITE = r"[a-z]+(-backports)?"
_SERIES = r"[0-9]+(\.[0-9]+)*"
# {upstream} and {version} stand for those of the version that is taken (of_version).
_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9.+_~\-]|\{upstream\}|\{version\})*"
_FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9.+_~\-]*"
_HTTPS = r"https://[A-Za-z0-9.\-]+(:[0-9]+)?/[!-~]+"
# PEP 508 (a project's name), and PEP 425 (the tags of a wheel that any Python 3 on any machine can import).
_PROJECT = r"[A-Za-z0-9]([A-Za-z0-9._\-]*[A-Za-z0-9])?"
_PURE_WHEEL = r"[A-Za-z0-9._+]+-[A-Za-z0-9._+]+-(py3|py2\.py3)-none-any\.whl"


class Kind(StrEnum):
    """Where a source comes from."""

    DEBIAN_SOURCE = "debian-source"
    PYPI = "pypi"
    HTTPS = "https"
    FILE = "file"


class Architecture(StrEnum):
    """The architectures that a package of the tool tree may have."""

    AMD64 = "amd64"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class WantedSource:
    """An entry of sources.toml. Which fields are set depends on `kind`.

    A Debian source has a `version`, or a `series` of which the newest version is taken; then `file` is a pattern.
    `suite`: whose index lists its versions, beside those of the toolchain's suite.
    """

    name: str
    kind: Kind
    version: str
    licence: str
    package: str = ""
    file: str = ""
    urls: tuple[str, ...] = ()
    path: str = ""
    series: str = ""
    suite: str = ""

    @property
    def group(self) -> tuple[str, str]:
        """What the files of one source package have in common: they are taken in one version."""
        return self.package, self.version or self.series


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The bytes that a person has put into sources.toml for a source; `size` is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class WantedTree:
    """A tool tree as toolchain.toml asks for it: package names, and links (path → target).

    `suite`: the Debian suite of all its packages where that is not the toolchain's; else empty.
    """

    name: str
    packages: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    suite: str = ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What every tree has beside its packages. Paths are relative to the tree's root."""

    merged: tuple[str, ...]
    folders: tuple[str, ...]
    skip: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Older:
    """A second suite, and the packages that may come from there: no others do. Both are empty for none."""

    suite: str = ""
    packages: tuple[str, ...] = ()


NO_OLDER = Older()


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """toolchain.toml. `older` has what `suite` has not any more."""

    suite: str
    older: Older = NO_OLDER
    architecture: Architecture
    layout: Layout
    trees: tuple[WantedTree, ...]

    def tree(self, name: str) -> WantedTree:
        """The named tree."""
        for tree in self.trees:
            if tree.name == name:
                return tree
        known = ", ".join(t.name for t in self.trees)
        raise UserError(f"no tree {name!r}", where=TOOLCHAIN_TOML, hint=f"known: {known}")


def check_schema(table: toml_reader.Table) -> None:
    """The file must be of the version that this code reads."""
    table.integer("schema", low=SCHEMA, high=SCHEMA)


def read_relative(table: toml_reader.Table, key: str, *, start: str = "") -> str:
    """A clean relative path: no '..', no '.', no '//', nothing absolute."""
    says = f"a plain relative path{f' that begins with {start}' if start else ''}"
    text = table.string(key, pattern=r"[A-Za-z0-9._+~/\-]+", says=says)
    clean = PurePosixPath(text)
    if clean.is_absolute() or ".." in clean.parts or str(clean) != text or not text.startswith(start):
        raise table.error(key, f"{text!r} is not {says}")
    return text


def read_package_names(table: toml_reader.Table) -> tuple[str, ...]:
    """The packages that a table names, sorted."""
    packages = table.strings("packages")
    for i, package in enumerate(packages):
        if re.fullmatch(PACKAGE, package) is None:
            raise table.error(f"packages[{i}]", f"{package!r} is not a Debian package name")
    if len(set(packages)) != len(packages):
        raise table.error("packages", "names a package twice")
    return tuple(sorted(packages))


def read_tree_suite(table: toml_reader.Table) -> str:
    """The suite of a tree that has one of its own."""
    return table.string("suite", pattern=SUITE, says="a Debian suite") if table.has("suite") else ""


def read_instead(table: toml_reader.Table, taken: WantedSource) -> WantedSource:
    """What was asked for, where a table of sources.lock has another version because that one was on no mirror."""
    if table.has("asked_series"):
        return replace(taken, version="", series=_series(table, "asked_series"), file=_pattern(table, "asked_file"))
    version = table.string("asked_version", pattern=VERSION, says="a version")
    return replace(
        taken, version=version, file=table.string("asked_file", pattern=_FILE_NAME, says="a plain file name")
    )


def _series(table: toml_reader.Table, key: str) -> str:
    return table.string(key, pattern=_SERIES, says="the beginning of versions, such as 6.12")


def _pattern(table: toml_reader.Table, key: str) -> str:
    file = table.string(key, pattern=_PATTERN, says="a file name with {upstream} or {version} in it")
    if "{" not in file:
        raise table.error(key, f"{file!r} is that of one version", "write {upstream} or {version} in its place")
    return file


def upstream(version: str) -> str:
    """The authors' own part of a version (Debian Policy 5.6.12): 6.18.15-1~bpo13+1 → 6.18.15."""
    whole = version.partition(":")[2] or version
    return whole.rpartition("-")[0] or whole


def in_series(version: str, series: str) -> bool:
    """Whether a version is of a series: 6.12.107-1 is of 6.12, 6.1.2-1 is not."""
    return (
        f"{upstream(version)}.".startswith(f"{series}.") or re.match(rf"{re.escape(series)}[+~]", version) is not None
    )


def read_source(table: toml_reader.Table, name: str) -> WantedSource:
    """What a table asks for: a table of sources.toml, or the same keys in one of sources.lock."""
    kind = table.choice("kind", Kind)
    package = file = path = series = suite = ""
    if kind is Kind.DEBIAN_SOURCE and table.has("series"):
        version, series = "", _series(table, "series")
    else:
        version = table.string("version", pattern=VERSION, says="a version")
    urls: tuple[str, ...] = ()
    match kind:
        case Kind.DEBIAN_SOURCE:
            package = table.string("package", pattern=PACKAGE, says="a Debian package name")
            file = (
                _pattern(table, "file")
                if series
                else table.string("file", pattern=_FILE_NAME, says="a plain file name")
            )
            if table.has("suite"):
                suite = table.string("suite", pattern=_SOURCE_SUITE, says="a Debian suite")
        case Kind.PYPI:
            package = table.string("package", pattern=_PROJECT, says="the name of a project on PyPI")
            # Anything else would be run when it is looked at (a source archive) or differ between machines.
            file = table.string("file", pattern=_PURE_WHEEL, says="a wheel NAME-VERSION-py3-none-any.whl")
        case Kind.HTTPS:
            urls = table.strings("urls")
            for i, url in enumerate(urls):
                if re.fullmatch(_HTTPS, url) is None:
                    raise table.error(f"urls[{i}]", f"{url!r} is not an https URL")
        case Kind.FILE:
            path = read_relative(table, "path")
    licence = table.string("licence")
    # fmt: off
    return WantedSource(name=name, kind=kind, version=version, licence=licence, package=package, file=file,
                        urls=urls, path=path, series=series, suite=suite)
    # fmt: on


def read_sources(path: Path) -> dict[WantedSource, Promise | None]:
    """Parse sources.toml, sorted by name: what is wanted, and which bytes where a person has said so."""
    top = toml_reader.load(path, shown_as=SOURCES_TOML)
    check_schema(top)
    parent = top.table("source")
    top.close()
    found: dict[WantedSource, Promise | None] = {}
    for name in sorted(parent.keys()):
        if re.fullmatch(NAME, name) is None:
            raise parent.error(name, f"{name!r} is not a name (lower case, digits, '+', '-', '.')")
        table = parent.table(name)
        source = read_source(table, name)
        promised = source.kind is not Kind.FILE and (table.has("sha256") or table.has("size"))
        if promised and source.series:
            raise table.error("sha256", "no bytes can be promised of a series", "name a version, or leave them out")
        found[source] = read_promise(table) if promised else None
        table.close()
    return found


def source_suites(asked: Iterable[WantedSource]) -> tuple[str, ...]:
    """The suites that sources name, sorted."""
    return tuple(sorted({want.suite for want in asked} - {""}))


def read_suites(table: toml_reader.Table) -> tuple[str, Older]:
    """`suite`, and the table `older` or nothing."""
    suite = table.string("suite", pattern=SUITE, says="a Debian suite")
    if not table.has("older"):
        return suite, NO_OLDER
    sub = table.table("older")
    older = Older(suite=sub.string("suite", pattern=SUITE, says="a Debian suite"), packages=read_package_names(sub))
    sub.close()
    if older.suite == suite:
        raise sub.error("suite", f"{suite!r} is the suite itself", "name an older one, or take [older] out")
    return suite, older


def read_promise(table: toml_reader.Table) -> Promise:
    """`sha256` and `size` of a table."""
    return Promise(sha256=table.sha256("sha256"), size=table.integer("size", low=1, high=MAX_SIZE))


def read_toolchain(path: Path) -> Toolchain:
    """Parse toolchain.toml."""
    top = toml_reader.load(path, shown_as=TOOLCHAIN_TOML)
    check_schema(top)
    suite, older = read_suites(top)
    architecture = top.choice("architecture", Architecture)
    table = top.table("layout")
    layout = Layout(merged=_clean(table, "merged"), folders=_clean(table, "folders"), skip=_clean(table, "skip"))
    table.close()
    trees = top.table("trees")
    top.close()
    wanted = tuple(_wanted_tree(trees, name) for name in sorted(trees.keys()))
    if not wanted:
        raise top.error("trees", "must not be empty")
    return Toolchain(suite=suite, older=older, architecture=architecture, layout=layout, trees=wanted)


def _clean(table: toml_reader.Table, key: str) -> tuple[str, ...]:
    values = table.strings(key, allow_empty=True)
    for i, value in enumerate(values):
        _check_member(table, f"{key}[{i}]", value)
    if len(set(values)) != len(values):
        raise table.error(key, "names something twice")
    return values


def _check_member(table: toml_reader.Table, key: str, value: str) -> None:
    clean = PurePosixPath(value)
    if clean.is_absolute() or ".." in clean.parts or str(clean) != value or value == ".":
        raise table.error(key, f"{value!r} is not a plain path below the tree's root")


def _wanted_tree(parent: toml_reader.Table, name: str) -> WantedTree:
    if re.fullmatch(r"[a-z][a-z0-9\-]*", name) is None:
        raise parent.error(name, f"{name!r} is not a tree name (lower case, digits, '-')")
    table = parent.table(name)
    packages, suite = read_package_names(table), read_tree_suite(table)
    links: list[tuple[str, str]] = []
    if table.has("links"):
        sub = table.table("links")
        for link in sorted(sub.keys()):
            _check_member(sub, link, link)
            links.append((link, sub.string(link)))
        sub.close()
    table.close()
    return WantedTree(name=name, packages=packages, links=tuple(links), suite=suite)
