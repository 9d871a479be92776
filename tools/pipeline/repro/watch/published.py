# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a repository of a registry has for a rebuilder: artifacts, the commits they claim, who has endorsed them.

All of it is a stranger's word. A claim only says where to begin: the rebuild shows whether it is true.
"""

import base64
import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tools.pipeline.base.errors import BuildError
from tools.pipeline.publish import artifact, manifest
from tools.pipeline.registry import oci
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Unreachable
from tools.pipeline.registry.oci import Descriptor
from tools.pipeline.sign import keys, statements
from tools.pipeline.sign.keys import Public
from tools.sev.formats import ENDORSEMENT, PROVENANCE, SUBJECT

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,99}")
_MANIFEST_MAX = 16 << 20  # bytes of a manifest.json
_STATEMENTS_MAX = 200
"""Statements of a kind on one artifact that are looked at: others may attach as many as they like."""
RENEWED = 0.75
"""Of an endorsement's life, after which it is given again."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One that is published, under `tags`; `document` is its manifest.json's descriptor."""

    subject: Descriptor
    tags: tuple[str, ...]
    profile: str
    document: Descriptor


def artifacts(registry: Registry, tag: str, unreadable: Callable[[BuildError], None]) -> list[Artifact]:
    """Guest artifacts behind every tag, or behind one; each once, in the order of their tags.

    A tag that cannot be read goes to `unreadable`, unless it is the one: anybody can put there what the registry will
    not give us, and must not hide the others with it.
    """
    found: dict[str, Artifact] = {}
    for name in [tag] if tag else registry.tags():
        try:
            content = registry.resolve(name)
        except BuildError as error:
            if tag or isinstance(error, Unreachable):
                raise
            unreadable(BuildError(f"{name}: {error.what}", where=registry.where, hint=error.hint))
            continue
        one = _artifact(content.data, content.descriptor, name) if content else None
        if one is None and tag:
            raise BuildError(f"has no artifact {tag}", where=registry.where, hint="publish it first")
        if one is not None:
            before = found.get(one.subject.digest)
            tags = (*(before.tags if before else ()), name)
            found[one.subject.digest] = replace(one, tags=tags)
    return list(found.values())


def _artifact(data: bytes, subject: Descriptor, tag: str) -> Artifact | None:
    """None for whatever else lies in the repository: signatures, statements, images."""
    try:
        document = oci.parse(data)
        if document.get("artifactType") != artifact.GUEST:
            return None
        profile = document["annotations"][artifact.PROFILE]
        layers = [oci.descriptor_of(entry, where=tag) for entry in document["layers"]]
        (listed,) = (layer for layer in layers if layer.annotations.get(oci.TITLE) == manifest.NAME)
    except (ValueError, LookupError, TypeError, BuildError):
        return None
    if not isinstance(profile, str) or _PROFILE.fullmatch(profile) is None:
        return None
    return Artifact(subject=subject, tags=(tag,), profile=profile, document=listed)


def read_manifest(registry: Registry, one: Artifact) -> bytes:
    """Its manifest.json."""
    return registry.read(one.document, limit=_MANIFEST_MAX)


def commits(registry: Registry, one: Artifact) -> list[str]:
    """The commits that its provenances name, signed or not, each once."""
    found: dict[str, None] = {}
    for bundle in _statements(registry, one.subject, PROVENANCE):
        try:
            document = oci.parse(bundle)
            if "dsseEnvelope" in document:
                document = oci.parse(base64.b64decode(document["dsseEnvelope"]["payload"], validate=True))
            predicate = document["predicate"]
            commit = predicate["buildDefinition"]["externalParameters"]["source"]["digest"]["gitCommit"]
        except (ValueError, LookupError, TypeError):
            continue
        if isinstance(commit, str) and _COMMIT.fullmatch(commit):
            found[commit] = None
    return list(found)


def renewal(registry: Registry, one: Artifact, public: Public) -> float:
    """When this key is to endorse it again: seconds since the epoch; 0.0 where it has not endorsed it there.

    That is when a quarter of the last endorsement's life is left: time enough for many tries.
    """
    known = {keys.fingerprint(public): public}
    last = 0.0
    for bundle in _statements(registry, one.subject, ENDORSEMENT):
        try:
            statement = json.loads(statements.unbundle(bundle, known)[0])
            subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
            begin, end = (_seconds(statement["predicate"][name]) for name in ("date", "validUntil"))
        except (ValueError, LookupError, TypeError):
            continue
        if statement.get("predicateType") == ENDORSEMENT and subjects.get(SUBJECT) == one.subject.sha256:
            last = max(last, begin + (end - begin) * RENEWED)
    return last


def _seconds(text: str) -> float:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC).timestamp()


def _statements(registry: Registry, subject: Descriptor, kind: str) -> Iterator[bytes]:
    """What is attached and says of itself that it is of this kind; what cannot be read is left out."""
    # Those that say to be of another kind do not count: one who endorses every day hides no provenance.
    listed = [entry for entry in registry.referrers(subject) if _annotation(entry, "predicateType") in {kind, ""}]
    # The first are the vendor's, from before the tag; ours are the last that were attached.
    half = _STATEMENTS_MAX // 2
    for entry in [*listed[:half], *listed[half:][-half:]]:
        try:
            content = registry.resolve(oci.descriptor_of(entry, where=subject.digest).digest)
            if content is None or oci.subject_of(content.data) != subject.digest:
                continue
            (layer,) = oci.parse(content.data)["layers"]
            yield registry.read(oci.descriptor_of(layer, where=subject.digest))
        except (BuildError, ValueError, LookupError, TypeError):
            continue


def _annotation(entry: dict[str, Any], name: str) -> str:
    annotations = entry.get("annotations")
    return str(annotations.get(name, "")) if isinstance(annotations, dict) else ""
