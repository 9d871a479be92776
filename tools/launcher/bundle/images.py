# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An image's layers and config, from an OCI layout or from what `docker save` writes.

OCI Image Format 1.1: "Image Layout", "Image Index", "Image Manifest"; Docker Image Specification 1.2: manifest.json.
Every file that a digest is given for is checked against it.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.bundle import blobs, image_config
from tools.launcher.bundle.blobs import Blobs
from tools.launcher.bundle.image_config import Config

LAYERS_MAX = 127
"""What engines allow, too."""

_REF = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Image:
    """`layers` are names of files, the lowest first; `digest` is the manifest's, empty where there is none."""

    files: Blobs
    layers: tuple[str, ...]
    config: Config
    digest: str = ""


def is_layout(files: Blobs) -> bool:
    """Whether there is an OCI layout, which counts more: its files are named by their digests."""
    return files.has("oci-layout") and files.has("index.json")


def is_saved(files: Blobs) -> bool:
    """Whether `docker save` wrote it: by what the file says, for a root file system may have one of that name."""
    if not files.has("manifest.json"):
        return False
    try:
        found = files.read_json("manifest.json")
    except UserError:
        return False
    return isinstance(found, list) and all(isinstance(entry, dict) and "Layers" in entry for entry in found)


def load(files: Blobs, *, name: str | None) -> Image:
    """The image of that name, or the only one."""
    return _from_layout(files, name) if is_layout(files) else _from_saved(files, name)


def _from_layout(files: Blobs, name: str | None) -> Image:
    version = files.read_json("oci-layout")
    if not isinstance(version, dict) or version.get("imageLayoutVersion") != "1.0.0":
        raise UserError("is no OCI layout of version 1.0.0", where=f"{files.where}: oci-layout")
    where = f"{files.where}: index.json"
    everything = _entries(files.read_json("index.json"), "manifests", where=where)
    chosen = _one(_named(everything, name), where=where, among=everything, name=name)
    # An index that is one for several platforms; deeper ones nobody writes.
    document, digest = _document(files, chosen, where=where)
    if "manifests" in document:
        found = [entry for entry in _entries(document, "manifests", where=where) if _platform(entry)]
        ours = _one(found, where=f"{where}: linux/amd64", among=found, name=None)
        document, digest = _document(files, ours, where=where)
    config, _ = _document(files, document.get("config"), where=f"{files.where}: manifest")
    layers = tuple(
        _blob(entry, where=f"{files.where}: manifest")[0] for entry in _entries(document, "layers", where=where)
    )
    return _image(files, layers, image_config.read(config, where=f"{files.where}: config"), digest=digest)


def _from_saved(files: Blobs, name: str | None) -> Image:
    where = f"{files.where}: manifest.json"
    found = files.read_json("manifest.json")
    entries = [entry for entry in found if name is None or name in (entry.get("RepoTags") or [])]
    entry = _one(entries, where=where, among=found, name=name)
    layers = entry.get("Layers")
    if (
        not isinstance(entry.get("Config"), str)
        or not isinstance(layers, list)
        or not all(isinstance(x, str) for x in layers)
    ):
        raise UserError("names no config and layers", where=where)
    config = image_config.read(files.read_json(entry["Config"]), where=f"{files.where}: config")
    return _image(files, tuple(layers), config, digest="")


def _image(files: Blobs, layers: tuple[str, ...], config: Config, *, digest: str) -> Image:
    if not 1 <= len(layers) <= LAYERS_MAX:
        raise UserError(f"has {len(layers)} layers, not 1 to {LAYERS_MAX}", where=files.where)
    if len(config.diff_ids) != len(layers):
        what = f"has {len(layers)} layers and a config of {len(config.diff_ids)}"
        raise UserError(what, where=files.where)
    return Image(files=files, layers=layers, config=config, digest=digest)


def _entries(document: Any, key: str, *, where: str) -> list[dict[str, Any]]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UserError(f"has no list of {key}", where=where)
    return found


def _named(entries: list[dict[str, Any]], name: str | None) -> list[dict[str, Any]]:
    if name is None:
        return entries
    return [
        entry for entry in entries if name in (entry.get("annotations") or {}).values() or name == entry.get("digest")
    ]


def _platform(entry: dict[str, Any]) -> bool:
    platform = entry.get("platform") or {}
    return isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")


def _one(entries: list[dict[str, Any]], *, where: str, among: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    # `docker save` of an image with two names writes it twice: the same image by its digest, and nothing to choose.
    same = {entry.get("digest") for entry in entries}
    if len(entries) == 1 or (len(same) == 1 and same != {None}):
        return entries[0]
    names = sorted({str(known) for entry in among for known in _names(entry) if known})
    hint = f"choose one, with --image-name of digest, --image of bundle: {', '.join(names)[:300]}" if names else None
    if not entries and name is not None:
        raise UserError(f"has no image of the name {name[:100]!r}", where=where, hint=hint)
    raise UserError(f"has {len(entries) or 'no'} images to choose from", where=where, hint=hint)


def _names(entry: dict[str, Any]) -> list[Any]:
    annotations = entry.get("annotations") or {}
    return (
        [annotations[key] for key in (_REF, _NAME) if key in annotations]
        or entry.get("RepoTags")
        or [entry.get("digest")]
    )


def _blob(descriptor: Any, *, where: str) -> tuple[str, str]:
    """Name and digest of the file that a descriptor is of."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise UserError(f"a descriptor with the digest {str(digest)[:80]!r}, which is no sha256", where=where)
    return f"blobs/sha256/{match[1]}", match[1]


def _document(files: Blobs, descriptor: Any, *, where: str) -> tuple[dict[str, Any], str]:
    name, digest = _blob(descriptor, where=where)
    stream, size = files.open(name)
    with stream:
        if size > blobs.JSON_MAX:
            raise UserError(f"has {size} bytes, more than {blobs.JSON_MAX}", where=f"{files.where}: {name}")
        data = stream.read()
    check(hashlib.sha256(data).hexdigest(), digest, where=f"{files.where}: {name}")
    document = blobs.parse(data, where=f"{files.where}: {name}")
    if not isinstance(document, dict):
        raise UserError("is no table", where=f"{files.where}: {name}")
    return document, f"sha256:{digest}"


def check(found: str, wanted: str, *, where: str) -> None:
    """UserError when a file is not what a digest in hexadecimal says."""
    if found != wanted:
        raise UserError(f"SHA-256 is {found}, its name says {wanted}", where=where, hint="copy the image again")


def sha256(stream: BinaryIO) -> str:
    """Of a whole stream, which is left at its beginning."""
    stream.seek(0)
    digest = hashlib.sha256()
    while data := stream.read(_CHUNK):
        digest.update(data)
    stream.seek(0)
    return digest.hexdigest()
