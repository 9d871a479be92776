# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""GUIDs as firmware stores them: three little-endian fields, then eight bytes (UEFI specification, appendix A).

Not Python's uuid: that asks which platform it is on, and takes longer to import than `digest` has to spare.
"""


def guid(text: str) -> bytes:
    """The 16 bytes of a GUID in its usual form."""
    return _swapped(bytes.fromhex(text.replace("-", "")))


def guid_text(raw: bytes) -> str:
    """The usual form of 16 bytes."""
    digits = _swapped(raw).hex()
    return "-".join(digits[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def _swapped(raw: bytes) -> bytes:
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]
