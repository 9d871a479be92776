# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is wanted, written by hand: sources.toml and toolchain.toml; and whether a lock still answers it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import pins
from tools.pipeline.sources.pins import Architecture, Kind, LocalFile, Source, ToolchainLock, Urls

SOURCES_TOML = "recipes/sources.toml"
TOOLCHAIN_TOML = "recipes/toolchain.toml"


@dataclass(frozen=True, kw_only=True)
class WantedSource:
    """An entry of sources.toml. Which fields are set depends on `kind`."""

    name: str
    kind: Kind
    version: str
    licence: str
    package: str = ""
    file: str = ""
    urls: tuple[str, ...] = ()
    path: str = ""
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class WantedTree:
    """A tool tree as toolchain.toml asks for it: package names, and links (path → target)."""

    name: str
    packages: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What every tree has beside its packages. Paths are relative to the tree's root."""

    merged: tuple[str, ...]
    folders: tuple[str, ...]
    skip: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """toolchain.toml."""

    suite: str
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


def read_wanted_sources(path: Path) -> tuple[WantedSource, ...]:
    """Parse sources.toml; sorted by name."""
    top = toml_reader.load(path, shown_as=SOURCES_TOML)
    pins.check_schema(top)
    table = top.table("source")
    top.close()
    return tuple(sorted((_wanted_source(table, n) for n in table.keys()), key=lambda s: s.name))  # noqa: SIM118


def _wanted_source(parent: toml_reader.Table, name: str) -> WantedSource:
    if re.fullmatch(pins.NAME, name) is None:
        raise parent.error(name, f"{name!r} is not a name (lower case, digits, '+', '-', '.')")
    table = parent.table(name)
    kind = table.choice("kind", Kind)
    version = table.string("version", pattern=pins.VERSION, says="a version")
    licence = pins.read_licence(table)
    package = file = local = sha256 = ""
    urls: tuple[str, ...] = ()
    size = 0
    if kind is Kind.DEBIAN_SOURCE:
        package = table.string("package", pattern=pins.PACKAGE, says="a Debian package name")
        file = table.string("file", pattern=pins.FILE_NAME, says="a plain file name")
    elif kind is Kind.HTTPS:
        # Nothing vouches for a bare URL: the person who adds it says which bytes are meant.
        urls = pins.read_urls(table)
        sha256 = table.sha256("sha256")
        size = table.integer("size", low=1, high=pins.MAX_SIZE)
    else:
        local = pins.read_relative(table, "path")
    table.close()
    # fmt: off
    return WantedSource(name=name, kind=kind, version=version, licence=licence, package=package, file=file,
                        urls=urls, path=local, sha256=sha256, size=size)
    # fmt: on


def read_toolchain(path: Path) -> Toolchain:
    """Parse toolchain.toml."""
    top = toml_reader.load(path, shown_as=TOOLCHAIN_TOML)
    pins.check_schema(top)
    suite = top.string("suite", pattern=r"[a-z]+", says="a Debian suite")
    architecture = top.choice("architecture", Architecture)
    table = top.table("layout")
    layout = Layout(merged=_clean(table, "merged"), folders=_clean(table, "folders"), skip=_clean(table, "skip"))
    table.close()
    trees = top.table("trees")
    top.close()
    wanted = tuple(_wanted_tree(trees, name) for name in sorted(trees.keys()))
    if not wanted:
        raise top.error("trees", "must not be empty")
    return Toolchain(suite=suite, architecture=architecture, layout=layout, trees=wanted)


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
    packages = pins.read_package_names(table)
    links: list[tuple[str, str]] = []
    if table.has("links"):
        sub = table.table("links")
        for link in sorted(sub.keys()):
            _check_member(sub, link, link)
            links.append((link, sub.string(link)))
        sub.close()
    table.close()
    return WantedTree(name=name, packages=packages, links=tuple(links))


def check_sources_fresh(wanted: Sequence[WantedSource], locked: Sequence[Source]) -> None:
    """Refuse a lock that was made for another sources.toml."""
    hint = "run ./doit lock"
    by_name = {source.pin.name: source for source in locked}
    for want in wanted:
        have = by_name.pop(want.name, None)
        if have is None:
            raise UserError("is not locked", where=f"{SOURCES_TOML}: source.{want.name}", hint=hint)
        asked = (want.kind, want.version, want.licence, want.package, want.file)
        same = asked == (have.kind, have.pin.version, have.licence, have.package, have.file)
        if want.kind is Kind.HTTPS:
            same = same and have.pin.origin == Urls(urls=want.urls)
            same = same and (want.sha256, want.size) == (have.pin.sha256, have.pin.size)
        if want.kind is Kind.FILE:
            same = same and have.pin.origin == LocalFile(path=want.path)
        if not same:
            raise UserError(
                "differs from what sources.toml asks for",
                where=f"{pins.SOURCES_LOCK}: {want.name}",
                hint=hint,
            )
    for name in by_name:
        raise UserError("sources.toml no longer asks for it", where=f"{pins.SOURCES_LOCK}: {name}", hint=hint)


def check_toolchain_fresh(wanted: Toolchain, locked: ToolchainLock) -> None:
    """Refuse a lock that was resolved for another toolchain.toml."""
    hint = "run ./doit lock"
    if wanted.suite != locked.suite:
        raise UserError(f"is for {locked.suite}, not {wanted.suite}", where=f"{pins.TOOLCHAIN_LOCK}: suite", hint=hint)
    have = dict(locked.wanted)
    for tree in wanted.trees:
        if have.pop(tree.name, None) != tree.packages:
            raise UserError(
                "was resolved for other packages than toolchain.toml asks for",
                where=f"{pins.TOOLCHAIN_LOCK}: trees.{tree.name}",
                hint=hint,
            )
    for name in have:
        raise UserError(
            "toolchain.toml no longer has this tree",
            where=f"{pins.TOOLCHAIN_LOCK}: trees.{name}",
            hint=hint,
        )
