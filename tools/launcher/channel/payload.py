# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Reading a payload of the guest's: what every decoder of a message does."""

import struct

MESSAGE_MAX = 1024


class ProtocolError(Exception):
    """The guest broke the protocol; the text says how."""


def need(condition: bool, what: str) -> None:
    """ProtocolError unless it holds."""
    if not condition:
        raise ProtocolError(what)


def fixed(layout: str, payload: bytes, name: str) -> tuple[int, ...]:
    """The numbers of a payload that has one length."""
    need(len(payload) == struct.calcsize(layout), f"{name} of {len(payload)} bytes")
    return struct.unpack(layout, payload)


def text(data: bytes, name: str) -> str:
    """A counted text at the end of a payload."""
    (length,) = struct.unpack_from("<I", data)
    need(length == len(data) - 4 and length <= MESSAGE_MAX, f"{name} with a wrong length")
    return data[4:].decode("utf-8", "replace")
