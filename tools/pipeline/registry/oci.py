# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""OCI image manifests, version 1.1, as data: descriptors, manifests, indices, and bytes that are always the same."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.sev.registry.reference import DIGEST

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"

MANIFEST_MAX = 4 << 20
"""Bytes of a manifest: the least that a registry must take (distribution specification 1.1), and the most we read."""


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """Bytes by size and digest, and what they are. `sha256` is in hex."""

    media_type: str
    sha256: str
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """As OCI writes it."""
        return f"sha256:{self.sha256}"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


@dataclass(frozen=True, kw_only=True)
class Content:
    """Bytes to be pushed: a file, bytes in memory, or what `opens` opens anew each time."""

    descriptor: Descriptor
    path: Path | None = None
    data: bytes = b""
    opens: Callable[[], BinaryIO] | None = None

    def open(self) -> BinaryIO:
        """From the beginning."""
        if self.opens is not None:
            return self.opens()
        return self.path.open("rb") if self.path else io.BytesIO(self.data)


def of_bytes(data: bytes, media_type: str, *, artifact_type: str = "", annotations: Mapping[str, str] = {}) -> Content:
    """Bytes in memory."""
    descriptor = Descriptor(
        media_type=media_type,
        sha256=files.of_bytes(data),
        size=len(data),
        artifact_type=artifact_type,
        annotations=annotations,
    )
    return Content(descriptor=descriptor, data=data)


EMPTY = of_bytes(b"{}", EMPTY_TYPE)
"""The config of a manifest that is no image's."""


def encode(document: Mapping[str, Any]) -> bytes:
    """The same bytes for the same document: no blanks, keys sorted."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def manifest(
    artifact_type: str,
    layers: Sequence[Descriptor],
    *,
    annotations: Mapping[str, str] = {},
    subject: Descriptor | None = None,
) -> Content:
    """A manifest with an empty config."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY.descriptor.document(),
        "layers": [layer.document() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    if subject is not None:
        plain = Descriptor(media_type=subject.media_type, sha256=subject.sha256, size=subject.size)
        document["subject"] = plain.document()
    return of_bytes(encode(document), MANIFEST, artifact_type=artifact_type, annotations=annotations)


def index(manifests: Sequence[Mapping[str, Any]]) -> bytes:
    """An index of manifests, given as JSON: what others have put there is kept as it is."""
    return encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)})


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object, as manifests are; ValueError for anything else, however deep."""
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(document, dict):
        raise ValueError("no object")  # noqa: TRY004 (one kind of error for whatever others send)
    return document


def subject_of(data: bytes) -> str:
    """The digest of a manifest's subject; empty when it has none, or is no manifest."""
    try:
        subject = parse(data).get("subject")
    except ValueError:
        return ""
    return str(subject.get("digest", "")) if isinstance(subject, dict) else ""


def descriptor_of(entry: Any, *, where: str) -> Descriptor:
    """A descriptor from its JSON; BuildError, naming `where`, for anything else."""
    try:
        digest, size = entry["digest"], entry["size"]
        good = DIGEST.fullmatch(digest) and isinstance(size, int) and size >= 0
        annotations = {str(key): str(value) for key, value in (entry.get("annotations") or {}).items()}
        kind, artifact_type = str(entry["mediaType"]), str(entry.get("artifactType", ""))
    except (LookupError, TypeError, AttributeError):
        good = None
    if not good:
        raise BuildError("has a descriptor that is none", where=where)
    return Descriptor(
        media_type=kind, sha256=digest[7:], size=size, artifact_type=artifact_type, annotations=annotations
    )


def referrers_tag(subject: Descriptor) -> str:
    """The tag of a manifest's referrers where a registry has no API for them (distribution specification 1.1)."""
    return f"sha256-{subject.sha256}"
