# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pins as text: the tables of the locks, which the manifest repeats, and the locks that are made of them."""

import json
from collections.abc import Iterable, Mapping, Sequence

from tools.pipeline.sources import pins
from tools.pipeline.sources.pins import Kind, Origin, Package, PoolFile, Source, ToolchainLock, Urls

Fields = Mapping[str, str | int | Sequence[str]]
"""A pin as the keys and values of its table."""

HEADER = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Written by ./doit lock from {origin}; do not edit.
"""


def source_fields(source: Source) -> Fields:
    """The table of a source."""
    own: dict[str, str | int | Sequence[str]] = {}
    if source.kind is Kind.DEBIAN_SOURCE:
        own = {"package": source.package, "file": source.file}
    return {
        "name": source.pin.name,
        "version": source.pin.version,
        "licence": source.licence,
        "kind": source.kind.value,
        **own,
        **_origin_fields(source.pin.origin),
        "size": source.pin.size,
        "sha256": source.pin.sha256,
    }


def package_fields(package: Package, *, trees: Sequence[str] | None = None) -> Fields:
    """The table of a package; `trees` in place of those that it is in."""
    return {
        "name": package.pin.name,
        "version": package.pin.version,
        "architecture": package.architecture.value,
        "trees": tuple(trees or package.trees),
        **_origin_fields(package.pin.origin),
        "size": package.pin.size,
        "sha256": package.pin.sha256,
    }


def render_sources(sources: Iterable[Source]) -> str:
    """sources.lock for sources."""
    return sources_lock(source_fields(source) for source in sources)


def render_toolchain(locked: ToolchainLock) -> str:
    """toolchain.lock for packages and what they were resolved for."""
    packages = (package_fields(package) for package in locked.packages)
    return toolchain_lock(suite=locked.suite, wanted=locked.wanted, packages=packages)


def sources_lock(sources: Iterable[Fields]) -> str:
    """The text of sources.lock: sorted by name, the same for the same pins."""
    text = HEADER.format(origin="sources.toml") + f"schema = {pins.SCHEMA}\n"
    return text + "".join(_block("[[source]]", fields) for fields in sorted(sources, key=_name))


def toolchain_lock(*, suite: str, wanted: Iterable[tuple[str, Sequence[str]]], packages: Iterable[Fields]) -> str:
    """The text of toolchain.lock: sorted by name, the same for the same pins."""
    text = HEADER.format(origin="toolchain.toml")
    text += f'schema = {pins.SCHEMA}\nsuite = "{suite}"\n'
    text += "\n# What the trees were resolved for.\n[trees]\n"
    for name, names in sorted(wanted):
        text += _block(f"[trees.{name}]", {"packages": names}).removeprefix("\n")
    return text + "".join(_block("[[package]]", fields) for fields in sorted(packages, key=_name))


def _name(fields: Fields) -> str:
    return str(fields["name"])


def _value(value: str | int | Sequence[str]) -> str:
    """TOML for a value; for the strings that the readers let through, JSON's notation is TOML's."""
    if isinstance(value, (str, int)):
        return json.dumps(value, ensure_ascii=False)
    return "[" + ", ".join(json.dumps(item, ensure_ascii=False) for item in value) + "]"


def _block(header: str, fields: Mapping[str, str | int | Sequence[str]]) -> str:
    return f"\n{header}\n" + "".join(f"{key} = {_value(value)}\n" for key, value in fields.items())


def _origin_fields(origin: Origin) -> dict[str, str | int | Sequence[str]]:
    if isinstance(origin, PoolFile):
        return {"archive": origin.archive.value, "path": origin.path}
    return {"urls": origin.urls} if isinstance(origin, Urls) else {"path": origin.path}
