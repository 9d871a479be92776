# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a published artifact (docs/publishing.md). Untrusted: what it names must stay in its folder."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.launcher.base.errors import CheckError
from tools.sev.formats import FILE_TYPE, GUEST_TYPE, MANIFEST_NAME, MODE, PROFILE, SBOM_TYPE, STATEMENTS, SUBJECT, TITLE

MANIFEST_MAX = 4 << 20
"""Bytes: the least that a registry must take (distribution specification 1.1), and the most that is read."""

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_FILE_MAX = 16 << 30
_PART = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}"
_PATH = re.compile(rf"{_PART}(?:/{_PART}){{0,4}}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of an artifact, by SHA-256 in hexadecimal and size in bytes."""

    name: str
    sha256: str
    size: int
    media_type: str
    executable: bool

    @property
    def wanted(self) -> bool:
        """Whether it is placed in any case: what is left out are the sources."""
        return self.media_type in {FILE_TYPE, SBOM_TYPE}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A manifest and what it names."""

    data: bytes
    sha256: str
    profile: str
    files: Mapping[str, File]

    @property
    def digest(self) -> str:
        """As OCI writes it."""
        return f"sha256:{self.sha256}"


def parse(data: bytes, *, where: str) -> Artifact:
    """The artifact whose manifest these bytes are; CheckError, naming `where`, when they are none of ours."""
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise CheckError("is no manifest", where=where)
    if document.get("artifactType") != GUEST_TYPE or document.get("mediaType") != MANIFEST_TYPE:
        kind = str(document.get("artifactType") or document.get("mediaType"))[:80]
        raise CheckError(f"is no artifact of ./doit publish, but {kind!r}", where=where)
    files: dict[str, File] = {}
    layers = document.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        file = _file(layer, where)
        if file.name in files:
            raise CheckError(f"names {file.name} twice", where=where)
        files[file.name] = file
    for name in files:
        parts = name.split("/")
        if any("/".join(parts[:count]) in files for count in range(1, len(parts))):
            raise CheckError(f"has {name} below a file", where=where)
        if parts[0] in {MANIFEST_NAME, STATEMENTS}:
            raise CheckError(f"has a file {name}, which is for `pull` to write", where=where)
        if name == SUBJECT:
            # In statements that is the manifest: the file could be one that somebody has endorsed.
            raise CheckError(f"has a file {name}, which is what statements call the manifest", where=where)
    annotations = document.get("annotations")
    profile = annotations.get(PROFILE) if isinstance(annotations, dict) else None
    return Artifact(data=data, sha256=hashlib.sha256(data).hexdigest(), profile=str(profile), files=files)


def _file(layer: Any, where: str) -> File:
    try:
        digest, size, kind = layer["digest"], layer["size"], layer["mediaType"]
        annotations = layer["annotations"]
        name, mode = annotations[TITLE], annotations.get(MODE, "")
        match = _DIGEST.fullmatch(digest)
        good = type(size) is int and 0 <= size <= _FILE_MAX and isinstance(kind, str)
        good = good and _PATH.fullmatch(name) is not None
    except (LookupError, TypeError, AttributeError):
        match, good = None, False
    if match is None or not good:
        raise CheckError("has a layer that is no file with a plain name, digest and size", where=where)
    return File(name=name, sha256=match[1], size=size, media_type=kind, executable=mode == "0755")
