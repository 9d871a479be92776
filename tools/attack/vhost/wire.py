# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The vhost-user protocol between QEMU and a device's backend: messages and their encoding.

QEMU, docs/interop/vhost-user.rst. Numbers are little-endian on the only machine that this runs on.
"""

import array
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct("<III")  # request, flags, size of the payload
_VERSION = 1
_REPLY = 1 << 2
NEED_REPLY = 1 << 3
_PAYLOAD_MAX = 4096
_DESCRIPTORS_MAX = 8  # VHOST_USER_MAX_FDS

# In place of a descriptor: none comes with the message (VHOST_USER_VRING_NOFD_MASK).
NO_DESCRIPTOR = 1 << 8


class Request(IntEnum):
    """What QEMU asks for, as far as it asks a block or entropy device."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25


class ProtocolFeature(IntEnum):
    """Numbers of bits (VHOST_USER_PROTOCOL_F_*)."""

    MQ = 0
    REPLY_ACK = 3
    BACKEND_REQ = 5
    CONFIG = 9


OFFERED = sum(1 << feature for feature in ProtocolFeature)

# VHOST_USER_BACKEND_CONFIG_CHANGE_MSG: from the backend to QEMU.
CONFIG_CHANGED = 2


@dataclass(frozen=True, kw_only=True)
class Message:
    """One request of QEMU's, and the descriptors that came with it."""

    request: int
    flags: int
    payload: bytes
    descriptors: tuple[int, ...] = ()

    @property
    def number(self) -> int:
        """The payload's first 64 bits."""
        return int.from_bytes(self.payload[:8], "little")

    @property
    def state(self) -> tuple[int, int]:
        """A vring's index and a number (struct vhost_vring_state)."""
        index, number = struct.unpack_from("<II", self.payload)
        return index, number


def receive(connection: socket.socket) -> Message | None:
    """The next message; None when QEMU has hung up."""
    header, descriptors = _exactly(connection, _HEADER.size)
    if len(header) < _HEADER.size:
        return None
    request, flags, size = _HEADER.unpack(header)
    if size > _PAYLOAD_MAX:
        raise ValueError(f"vhost-user message {request} with {size} bytes")
    payload, more = _exactly(connection, size)
    return Message(request=request, flags=flags, payload=payload, descriptors=(*descriptors, *more))


def reply(connection: socket.socket, message: Message, payload: bytes) -> None:
    """Answer a message."""
    connection.sendall(_HEADER.pack(message.request, _VERSION | _REPLY, len(payload)) + payload)


def send(connection: socket.socket, request: int, payload: bytes = b"") -> None:
    """A request of our own, which asks for no reply."""
    connection.sendall(_HEADER.pack(request, _VERSION, len(payload)) + payload)


def _exactly(connection: socket.socket, size: int) -> tuple[bytes, tuple[int, ...]]:
    """So many bytes, fewer at the stream's end, and the descriptors that came with them."""
    data = b""
    descriptors = array.array("i")
    while len(data) < size:
        space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * descriptors.itemsize)
        try:
            part, ancillary, _, _ = connection.recvmsg(size - len(data), space)
        except ConnectionResetError:
            break
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) // 4 * 4])
        if not part:
            break
        data += part
    return data, tuple(descriptors)


def close(descriptors: tuple[int, ...]) -> None:
    """Descriptors that nobody needs."""
    for descriptor in descriptors:
        os.close(descriptor)
