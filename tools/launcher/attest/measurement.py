# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The launch measurement of SEV and SEV-ES: AMD 55766, SEV API 0.24, section 6.5 (LAUNCH_MEASURE).

The firmware gives the host an HMAC over the launch digest, keyed with the transport integrity key (TIK) that
only guest owner and firmware know. It exists once per launch; SNP has attestation reports instead.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from tools.launcher.base import encodings

TIK_SIZE = 16
BLOB_SIZE = 48
"""HMAC-SHA256, then MNONCE, as QEMU's query-sev-launch-measure gives them in base64."""
_MAC_SIZE = 32
# Tells this HMAC from the API's other ones.
_CONTEXT = 0x04


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the host passes on: the HMAC (32 bytes) and the nonce that went into it (16 bytes)."""

    mac: bytes
    mnonce: bytes


@dataclass(frozen=True, kw_only=True)
class Platform:
    """API version and build of the firmware, one byte each, as QEMU's query-sev tells them."""

    api_major: int
    api_minor: int
    build: int


def decode(text: str) -> Measurement:
    """From base64; ValueError says what is wrong."""
    blob = encodings.from_base64(text.encode("utf-8", "surrogateescape"))
    if blob is None:
        raise ValueError("is no base64")
    if len(blob) != BLOB_SIZE:
        raise ValueError(f"has {len(blob)} bytes in base64, a launch measurement has {BLOB_SIZE}")
    return split(blob)


def split(blob: bytes) -> Measurement:
    """From its 48 bytes."""
    return Measurement(mac=blob[:_MAC_SIZE], mnonce=blob[_MAC_SIZE:])


def expected_mac(*, tik: bytes, platform: Platform, policy: int, digest: bytes, mnonce: bytes) -> bytes:
    """HMAC-SHA256(TIK, 0x04 ‖ major ‖ minor ‖ build ‖ policy, LE32 ‖ launch digest ‖ MNONCE)."""
    head = struct.pack("<BBBBI", _CONTEXT, platform.api_major, platform.api_minor, platform.build, policy)
    return hmac.new(tik, head + digest + mnonce, hashlib.sha256).digest()


def matches(measurement: Measurement, *, tik: bytes, platform: Platform, policy: int, digest: bytes) -> bool:
    """Whether the measurement is that of `digest`; takes the same time either way."""
    mac = expected_mac(tik=tik, platform=platform, policy=policy, digest=digest, mnonce=measurement.mnonce)
    return hmac.compare_digest(mac, measurement.mac)
