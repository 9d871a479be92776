# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The agent's messages, written from docs/protocol.md alone."""

import struct

WINDOW = 256 * 1024


def frame(kind: int, process: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("<BBHII", kind, 0, 0, process, len(payload)) + payload


def hello(**changes: int) -> bytes:
    fields = {"low": 2, "high": 2, "caps": 1, "window": WINDOW, "profile": 0, "bound": 0} | changes
    return frame(0x01, 0, b"SEVA" + struct.pack("<HHIIBB", *fields.values()))


def exited(code: int) -> bytes:
    return frame(0x35, 1, struct.pack("<BBHI", 0, 0, 0, code))


def attested(nonce: bytes, behaviour: str) -> bytes:
    failed = behaviour == "no-report"
    texts = [b"no processor", b"", b""] if failed else [b"sev_guest", b"report over " + nonce, b"certificates"]
    return bytes([failed, 0, 0, 0]) + b"".join(struct.pack("<I", len(text)) + text for text in texts)
