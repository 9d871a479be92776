# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/contents.toml: what the files of an output folder consist of."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base import names, toml_reader
from tools.pipeline.base.toml_reader import Table

FILE = "recipes/contents.toml"
SCHEMA = 1

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_CPE = r"[aoh]:[a-z0-9._-]+:[a-z0-9._-]+"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9.+~:-]*"
_LICENCE = r"[A-Za-z0-9.+() -]+"


class Kind(StrEnum):
    """Where a part comes from."""

    PACKAGE = "package"
    CARRIED = "carried"
    CRATE = "crate"
    OWN = "own"


@dataclass(frozen=True, kw_only=True)
class Cpe:
    """A name of the CPE dictionary: `part:vendor:product`; `version` is empty where it is the component's own."""

    product: str
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that is linked into a file, or lies in a source. `package` and `source` are Debian's names."""

    key: str
    kind: Kind
    name: str
    licence: str
    version: str = ""
    package: str = ""
    source: str = ""
    cpe: Cpe | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """File → keys of parts and names of sources; the parts; CPE names of sources."""

    files: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, Part]
    sources: Mapping[str, Cpe]

    def with_source(self, new: str, *, in_place_of: str) -> "Contents":
        """The same where another source stands in the place of one: the kernel of another series."""
        files = {file: tuple(new if key == in_place_of else key for key in keys) for file, keys in self.files.items()}
        cpes = {new if name == in_place_of else name: cpe for name, cpe in self.sources.items()}
        return replace(self, files=files, sources=cpes)


def load(root: Path, *, sources: Collection[str]) -> Contents:
    """Read it; `sources` are the names in sources.toml. UserError names the key that is wrong."""
    top = toml_reader.load(root / FILE, shown_as=FILE)
    top.integer("schema", low=SCHEMA, high=SCHEMA)
    parts = {}
    table = top.table("part")
    for key in sorted(table.keys()):
        one = table.table(key)
        parts[key] = _part(one, key)
        one.close()
    cpes = {}
    table = top.table("source")
    for name in sorted(table.keys()):
        if name not in sources:
            raise table.error(name, "is no source", names.hint(name, sources))
        one = table.table(name)
        cpe = _cpe(one)
        one.close()
        if cpe is not None:
            cpes[name] = cpe
    files = {}
    listed = top.table("files")
    for file in sorted(listed.keys()):
        files[file] = listed.strings(file)
        for key in files[file]:
            if key not in parts and key not in sources:
                known = [*parts, *sources]
                raise listed.error(file, f"{key!r} is neither a part nor a source", names.hint(key, known))
    top.close()
    return Contents(files=files, parts=parts, sources=cpes)


def _part(table: Table, key: str) -> Part:
    kind = table.choice("kind", Kind)
    given = {name: table.string(name, pattern=pattern, says="a name or a version")
             for name, pattern in (("name", _NAME), ("version", _VERSION), ("package", _NAME), ("source", _NAME))
             if table.has(name)}  # fmt: skip
    wanted = {Kind.PACKAGE: "package", Kind.CARRIED: "version", Kind.CRATE: "version"}.get(kind)
    if wanted and wanted not in given:
        raise table.error(wanted, f"is missing, which a part of kind {kind} has")
    licence = table.string("licence", pattern=_LICENCE, says="an SPDX expression")
    return Part(key=key, kind=kind, licence=licence, cpe=_cpe(table), **{"name": key, **given})


def _cpe(table: Table) -> Cpe | None:
    if not table.has("cpe"):
        return None
    product = table.string("cpe", pattern=_CPE, says="part:vendor:product")
    version = table.string("cpe-version", pattern=_VERSION, says="a version") if table.has("cpe-version") else ""
    return Cpe(product=product, version=version)
