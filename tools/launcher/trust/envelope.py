# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Signed statements as they are sent: in-toto in DSSE in a sigstore bundle 0.3. Untrusted, so read strictly.

What a bundle says of its key is not looked at: a signature is by a key of the policy, or nobody's.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from tools.launcher.trust.policy import Policy
from tools.sev.formats import BUNDLE_TYPE, STATEMENT_TYPE

BUNDLE_MAX = 8 << 20
"""Bytes; ours has some 100 KB."""


class Unusable(Exception):  # noqa: N818 (of a statement, which does not count then)
    """Why a statement does not count, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A statement with a signature that is right, and whose it is."""

    principal: str
    fingerprint: str
    document: dict[str, Any]


def pre_authentication(payload: bytes) -> bytes:
    """What DSSE signs (version 1)."""
    kind = STATEMENT_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def opened(bundle: bytes, policy: Policy) -> Signed:
    """The statement in a bundle; Unusable when it is none, or signed by nobody whom the policy names."""
    document = parse(bundle)
    envelope = document.get("dsseEnvelope")
    if document.get("mediaType") != BUNDLE_TYPE or not isinstance(envelope, dict):
        raise Unusable("is no sigstore bundle 0.3 with an envelope")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise Unusable("has not exactly one signature")
    if envelope.get("payloadType") != STATEMENT_TYPE:
        raise Unusable("holds no in-toto statement")
    payload = _decoded(envelope.get("payload"))
    signer = policy.signer(_decoded(signatures[0].get("sig")), pre_authentication(payload))
    if signer is None:
        raise Unusable("is not signed by a key of the policy")
    return Signed(principal=signer[0], fingerprint=signer[1], document=parse(payload))


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object without a key that stands twice, of which two readers would make two things; else Unusable."""
    if len(data) > BUNDLE_MAX:
        raise Unusable(f"has more than {BUNDLE_MAX} bytes")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unusable("is no JSON object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _constant(text: str) -> None:
    raise ValueError(text)


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Unusable("is not in base64") from None
