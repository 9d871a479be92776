# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Statements (in-toto, version 1), signed (DSSE, in a sigstore bundle 0.3) or not, as attachments of an artifact.

statement ── DSSE envelope ── bundle ── referrer, which `cosign verify-attestation --new-bundle-format` finds
manifest's digest ── simple signing ── tag sha256-DIGEST.sig, which `cosign verify` finds
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tools.pipeline.registry import oci, target
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.registry.target import Attachment, Target, Whole
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Public, Signer

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "application/vnd.in-toto+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
SAYS = "sev-artifacts.says"
"""Annotation of a statement: SHA-256 of what it says and of who says it, without the date."""


def statement(subjects: Sequence[tuple[str, str]], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """About files, as (name, SHA-256)."""
    return oci.encode(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def pre_authentication(payload: bytes, payload_type: str) -> bytes:
    """What DSSE signs (version 1)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def bundle(payload: bytes, signer: Signer) -> bytes:
    """The statement, signed. cosign takes no key id but the empty one."""
    signature = signer.sign(pre_authentication(payload, STATEMENT))
    return oci.encode(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": keys.fingerprint(signer.public)}},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": STATEMENT,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def unbundle(data: bytes, publics: Mapping[str, Public]) -> tuple[bytes, str]:
    """The statement that somebody has signed, and the fingerprint of his key, one of `publics`.

    ValueError, with what is wrong in a few words, for what is no bundle or that none of them has signed.
    """
    try:
        envelope = oci.parse(data)["dsseEnvelope"]
        (entry,) = envelope["signatures"]
        payload, signature = (base64.b64decode(text, validate=True) for text in (envelope["payload"], entry["sig"]))
        kind = envelope["payloadType"]
    except (ValueError, LookupError, TypeError):
        raise ValueError("is no signed statement") from None
    if kind == STATEMENT:
        for fingerprint, public in publics.items():
            if keys.verifies(public, signature, pre_authentication(payload, STATEMENT)):
                return payload, fingerprint
    raise ValueError("is not signed by who should have signed it")


def attached(payload: bytes, signer: Signer | None, *, subject: Descriptor, says: str, created: str) -> Attachment:
    """A statement as a referrer of `subject`; `created` is a time as RFC 3339 has it."""
    kind, data = (BUNDLE, bundle(payload, signer)) if signer else (STATEMENT, payload)
    annotations = {oci.CREATED: created, SAYS: says, "predicateType": str(json.loads(payload)["predicateType"])}
    made = target.whole(kind, [oci.of_bytes(data, kind)], annotations=annotations, subject=subject)
    return Attachment(whole=made)


def said(where: Target, subject: Descriptor, says: str) -> bool:
    """Whether a statement that says the same, by the same key, is attached already."""
    listed = where.referrers(subject)
    return any(isinstance(one.get("annotations"), dict) and one["annotations"].get(SAYS) == says for one in listed)


def signed(where: Target, subject: Descriptor, name: str, signer: Signer) -> Attachment | None:
    """The signature that `cosign verify` finds, beside those of others that are there; None when ours is, too."""
    payload = oci.encode(
        {
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": subject.digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )
    tag = f"{oci.referrers_tag(subject)}.sig"
    there = where.resolve(tag)
    others = _layers(there, tag) if there else []
    for layer in others:
        if layer.sha256 == oci.of_bytes(payload, SIMPLE).descriptor.sha256 and keys.verifies(
            signer.public, _decoded(layer.annotations.get(SIGNATURE, "")), payload
        ):
            return None
    signature = base64.b64encode(signer.sign(payload)).decode()
    ours = oci.of_bytes(payload, SIMPLE, annotations={SIGNATURE: signature})
    manifest = oci.manifest(SIMPLE, [*others, ours.descriptor])
    return Attachment(whole=Whole(manifest=manifest, blobs=(oci.EMPTY, ours)), tag=tag)


def _layers(content: Content, tag: str) -> list[Descriptor]:
    try:
        listed = oci.parse(content.data)["layers"]
    except (ValueError, KeyError):
        listed = []
    return [oci.descriptor_of(entry, where=tag) for entry in listed if isinstance(listed, list)]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
