# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes as people carry them about: plain, in hexadecimal or in base64."""

import base64
import binascii
import re

# Characters; less could be anything.
_TEXT_MIN = 16
_HEX = re.compile(rb"(?:0x)?((?:[0-9a-fA-F]{2})+)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def decode(data: bytes, *, size: int) -> bytes | None:
    """The `size` bytes that `data` is, or that it holds as text; None when it does neither."""
    if len(data) == size:
        return data
    found = from_hex(data)
    if found is None or len(found) != size:
        found = from_base64(data)
    return found if found is not None and len(found) == size else None


def from_hex(data: bytes) -> bytes | None:
    """What hexadecimal digits stand for, whatever the white space between them; None for anything else."""
    match = _HEX.fullmatch(b"".join(data.split()))
    return None if match is None else bytes.fromhex(match[1].decode("ascii"))


def from_base64(data: bytes) -> bytes | None:
    """What base64 in either alphabet stands for, whatever the white space; None for anything else."""
    text = b"".join(data.split())
    if _BASE64.fullmatch(text) is None:
        return None
    try:
        return base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except (binascii.Error, ValueError):
        return None


def resemblance(data: bytes) -> str:
    """For the end of a message about a wrong size: what the bytes look like, or nothing."""
    head = data.lstrip()[:64]
    if head.startswith(b"-----BEGIN "):
        label = head.removeprefix(b"-----BEGIN ").partition(b"-----")[0].decode("ascii", "replace")
        return f" (PEM: {label})"
    if head.startswith((b"{", b"[")):
        return " (JSON?)"
    for name, decoded in (("hexadecimal", from_hex(data)), ("base64", from_base64(data))):
        if decoded is not None and len(data) >= _TEXT_MIN:
            return f" ({name} text of {len(decoded)} bytes?)"
    return ""
