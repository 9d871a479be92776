# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The SBOM of an output folder: CycloneDX 1.6, JSON, the same bytes for the same contents.

    files of out/ ──┬─ sources, with patches and what they resolve
                    └─ parts that are linked in or carried, with the package that they are of
    packages of the tool trees, and sources that only tools are made of: scope excluded

It has no date, and its serial number is made from the rest of it.
"""

import hashlib
import json
import re
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.pipeline.base.errors import UserError
from tools.pipeline.sbom.contents import FILE, Contents, Cpe, Kind, Part
from tools.pipeline.sources.pins import Package, Pin, PoolFile, Source, Wheel
from tools.pipeline.sources.wanted import Older
from tools.sev.formats import KERNEL_NAME, NETWORK

INITRAMFS = "initramfs.cpio.zst"
KERNEL = KERNEL_NAME
_OWN_LICENCE = "Apache-2.0"
_PROJECT = "sev-artifacts"

_KINDS = {
    KERNEL: "operating-system",
    f"{KERNEL}{NETWORK}": "operating-system",
    "OVMF.fd": "firmware",
    "sev-launch": "application",
    "sev-runtime": "application",
    "mkfs.erofs": "application",
    "qemu-lite": "application",
}
"""What a file counts as; every other is a file."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch that is applied to a source, and the CVEs that it resolves. `where` is in the checkout or the source."""

    where: str
    resolves: tuple[str, ...] = ()
    unofficial: bool = True


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the document is made of: the pins of a profile, and the patches of each source by its name.

    `suite` is the Debian suite of the packages, but for those that `older` names.
    """

    profile: str
    version: str
    suite: str
    older: Older
    contents: Contents
    sources: Sequence[Source]
    packages: Sequence[Package]
    patches: Mapping[str, Sequence[Patch]]


def render(material: Material, files: Mapping[str, str]) -> bytes:
    """The document for the files of an output folder: name → SHA-256. UserError where contents.toml does not fit."""
    holds = _holds(material, files)
    used = sorted({key for keys in holds.values() for key in keys})
    sources = {source.pin.name: source for source in material.sources}
    parts = material.contents.parts
    components = [_file(name, sha256, material) for name, sha256 in sorted(files.items())]
    components += [_part(parts[key], material) for key in used if key in parts]
    components += [_source(source, material, used=name in used) for name, source in sorted(sources.items())]
    components += [_package(package, material) for package in _unique(material.packages)]
    root = _component("application", f"project:{_PROJECT}", _PROJECT, material.version, licence=_OWN_LICENCE)
    root["properties"] = [{"name": "sev-artifacts:profile", "value": material.profile}]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": root},
        "components": components,
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": [f"file:{name}" for name in sorted(files)]},
            *(
                {"ref": f"file:{name}", "dependsOn": sorted(_ref(key, parts) for key in keys)}
                for name, keys in sorted(holds.items())
                if keys
            ),
        ],
    }
    digest = hashlib.sha256(_encode(document)).digest()
    return _encode({**document, "serialNumber": uuid.UUID(bytes=digest[:16], version=5).urn})


def upstream(version: str) -> str:
    """A Debian version without epoch, repacking and revision: what the authors call it."""
    return re.sub(r"([+~](dfsg|ds|deb|really)[^-]*)?(-[^-]*)?$", "", version.partition(":")[2] or version)


def _encode(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _holds(material: Material, files: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What each file consists of. A kernel that is beside no initramfs has it inside."""
    listed = material.contents.files
    found = {name: listed.get(name, ()) for name in files}
    if KERNEL in files and INITRAMFS not in files:
        found[KERNEL] = (*found[KERNEL], *listed.get(INITRAMFS, ()))
    sources = {source.pin.name for source in material.sources}
    for name, keys in found.items():
        for key in keys:
            if key not in material.contents.parts and key not in sources:
                raise UserError(f"{key!r} is no source of this profile", where=f"{FILE}: files.{name}")
    return found


def _ref(key: str, parts: Mapping[str, Part]) -> str:
    return f"{'part' if key in parts else 'source'}:{key}"


def _component(
    kind: str, ref: str, name: str, version: str, *, licence: str = "", sha256: str = "", scope: str = ""
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "bom-ref": ref, "name": name}
    if version:
        found["version"] = version
    if licence:
        # A single identifier is an expression, too.
        found["licenses"] = [{"expression": licence}]
    if sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    if scope:
        found["scope"] = scope
    return found


def _file(name: str, sha256: str, material: Material) -> dict[str, Any]:
    own = not material.contents.files.get(name)
    licence = _OWN_LICENCE if own else ""
    return _component(_KINDS.get(name, "file"), f"file:{name}", name, material.version, licence=licence, sha256=sha256)


def _part(part: Part, material: Material) -> dict[str, Any]:
    package = _find(part, material) if part.package else None
    version = part.version or (upstream(package.pin.version) if package else material.version)
    found = _component("library", f"part:{part.key}", part.name, version, licence=part.licence)
    if part.kind is Kind.CRATE:
        found["purl"] = f"pkg:cargo/{_quote(part.name)}@{_quote(version)}"
    elif package is not None:
        found["purl"] = _deb(part.source, package.pin.version, "source", _suite(package, material))
    elif part.kind is Kind.CARRIED:
        found["purl"] = f"pkg:generic/{_quote(part.name)}@{_quote(version)}"
    if part.cpe is not None:
        found["cpe"] = _cpe(part.cpe, version)
    if package is not None:
        found["evidence"] = {"occurrences": [{"location": f"tool package {package.pin.name} {package.pin.version}"}]}
    return found


def _find(part: Part, material: Material) -> Package:
    for package in material.packages:
        if package.pin.name == part.package:
            return package
    raise UserError(f"{part.package!r} is in no tool tree of a step", where=f"{FILE}: part.{part.key}.package")


def _source(source: Source, material: Material, *, used: bool) -> dict[str, Any]:
    pin, name = source.pin, source.pin.name
    version = upstream(pin.version)
    kind = "operating-system" if name == "linux" else "application"
    scope = "required" if used else "excluded"
    found = _component(kind, f"source:{name}", name, version, licence=source.wanted.licence, scope=scope)
    found["purl"] = _purl(pin, source.wanted.package or name)
    cpe = material.contents.sources.get(name)
    if cpe is not None:
        found["cpe"] = _cpe(cpe, version)
    # What has this digest is the archive, not a part of the artifacts.
    archive = {
        "type": "source-distribution", "url": _place(pin), "hashes": [{"alg": "SHA-256", "content": pin.sha256}]
    }  # fmt: skip
    found["externalReferences"] = [archive]
    if patches := material.patches.get(name):
        found["pedigree"] = {"patches": [_patch(patch) for patch in patches]}
    return found


def _patch(patch: Patch) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "unofficial" if patch.unofficial else "backport", "diff": {"url": patch.where}}
    if patch.resolves:
        found["resolves"] = [{"type": "security", "id": cve, "name": cve} for cve in patch.resolves]
    return found


def _package(package: Package, material: Material) -> dict[str, Any]:
    pin = package.pin
    ref = f"tool:{pin.name}@{pin.version}"
    found = _component("application", ref, pin.name, pin.version, sha256=pin.sha256, scope="excluded")
    found["purl"] = _deb(pin.name, pin.version, package.architecture.value, _suite(package, material))
    return found


def _unique(packages: Sequence[Package]) -> list[Package]:
    return [found for _, found in sorted({(p.pin.name, p.pin.version): p for p in packages}.items())]


def _place(pin: Pin) -> str:
    match pin.origin:
        case PoolFile(archive=archive, path=path):
            # Below any mirror of the archive; none is named here.
            return urllib.parse.quote(f"{archive}/{path}", safe="/~")
        case Wheel(file=file):
            return urllib.parse.quote(file)
        case _:
            return f"sha256/{pin.sha256[:2]}/{pin.sha256}"


def _suite(package: Package, material: Material) -> str:
    return material.older.suite if package.pin.name in material.older.packages else material.suite


def _purl(pin: Pin, package: str) -> str:
    if isinstance(pin.origin, PoolFile):
        return _deb(package, pin.version, "source")
    if isinstance(pin.origin, Wheel):
        return f"pkg:pypi/{_quote(pin.origin.package.lower().replace('_', '-'))}@{_quote(pin.version)}"
    return f"pkg:generic/{_quote(pin.name)}@{_quote(pin.version)}"


def _deb(name: str, version: str, architecture: str, suite: str = "") -> str:
    # A source is pinned from whatever suite has it.
    distro = f"&distro={suite}" if suite else ""
    return f"pkg:deb/debian/{_quote(name)}@{_quote(version)}?arch={architecture}{distro}"


def _quote(text: str) -> str:
    # Package URLs: everything but letters, digits, . - _ ~ and : is quoted.
    return urllib.parse.quote(text, safe="~:")


def _cpe(cpe: Cpe, version: str) -> str:
    # CPE 2.3 formatted strings quote punctuation; . - _ need none.
    shown = re.sub(r"([^A-Za-z0-9._-])", r"\\\1", cpe.version or version)
    return f"cpe:2.3:{cpe.product}:{shown}:*:*:*:*:*:*:*"
