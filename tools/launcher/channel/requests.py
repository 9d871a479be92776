# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the host asks of the agent, in bytes (docs/protocol.md); ValueError for what the protocol cannot carry."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tools.launcher.channel.network import Network
from tools.launcher.channel.protocol import (
    CONTINUED_MAX,
    DEFAULT_WINDOW,
    ENTRIES_MAX,
    FLAG_MORE,
    GROUPS_MAX,
    MAGIC,
    PAYLOAD_MAX,
    VERSION,
    Kind,
    RootKind,
    Stream,
    frame,
)
from tools.sev.workload.document import Doors


def _bytes(data: bytes) -> bytes:
    if b"\0" in data:
        raise ValueError("a NUL byte cannot be passed on")
    return struct.pack("<I", len(data)) + data


def host_hello() -> bytes:
    """Answer to the agent's HELLO."""
    return frame(Kind.HELLO, payload=struct.pack("<4sHHI", MAGIC, VERSION, 0, DEFAULT_WINDOW))


def container(*, kind: RootKind, length: int, writable_limit: int, hostname: bytes) -> bytes:
    """CONTAINER; `length` and `writable_limit` in bytes, 0 for the defaults of docs/protocol.md."""
    payload = struct.pack("<BQQ", kind, length, writable_limit) + _bytes(hostname)
    return frame(Kind.CONTAINER, payload=payload)


@dataclass(frozen=True, kw_only=True)
class Process:
    """What SPAWN carries; `size`: rows and columns of its terminal, 0 for unknown, None for no terminal."""

    argv: Sequence[bytes]
    env: Sequence[bytes] = ()
    cwd: bytes = b"/"
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    stdin_at_end: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What RUN carries: a process of the document, 0 or the number of an exec entry, and what is added to it.

    `doors` is what the document opens of it. `size` as in Process, only where that is open.
    """

    doors: Doors
    entry: int = 0
    env: Sequence[bytes] = ()
    stdin_at_end: bool = False
    size: tuple[int, int] | None = None


def _continued(kind: Kind, payload: bytes, *, process: int = 0) -> bytes:
    """A message in as many frames as it takes; ValueError when it is too long for any number of them."""
    if len(payload) > CONTINUED_MAX:
        raise ValueError(f"arguments, environment or file exceed {CONTINUED_MAX} bytes")
    parts = [payload[at : at + PAYLOAD_MAX] for at in range(0, len(payload) or 1, PAYLOAD_MAX)]
    flags = [*(FLAG_MORE for _ in parts[1:]), 0]
    return b"".join(frame(kind, process=process, payload=p, flags=f) for p, f in zip(parts, flags, strict=True))


def workload(document: bytes) -> bytes:
    """WORKLOAD: the document's bytes."""
    return _continued(Kind.WORKLOAD, document)


def supplied_file(number: int, content: bytes) -> bytes:
    """FILE: one of the files that the document lets the host supply."""
    return _continued(Kind.FILE, struct.pack("<II", number, len(content)) + content)


def network(what: Network) -> bytes:
    """NETWORK: interfaces, addresses and routes, where the document has a network."""
    return frame(Kind.NETWORK, payload=what.encode())


def prepare(hostname: bytes) -> bytes:
    """PREPARE: the container that the document describes; a host name where it leaves that open."""
    return frame(Kind.PREPARE, payload=_bytes(hostname))


def run(process: int, what: Run) -> bytes:
    """RUN in as many frames as it takes; ValueError when a limit of the protocol is exceeded."""
    if len(what.env) > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} environment entries")
    parts = [struct.pack("<B3xII", 2 * what.stdin_at_end, what.entry, len(what.env)), *map(_bytes, what.env)]
    return _continued(Kind.RUN, b"".join([*parts, struct.pack("<HH", *what.size or (0, 0))]), process=process)


def resize_frame(process: int, rows: int, columns: int) -> bytes:
    """RESIZE: the size of the terminal that the process is shown on."""
    return frame(Kind.RESIZE, process=process, payload=struct.pack("<HH", rows, columns))


def spawn(process: int, what: Process) -> bytes:
    """SPAWN in as many frames as it takes; ValueError when a limit of the protocol is exceeded."""
    if not 1 <= len(what.argv) <= ENTRIES_MAX or not what.argv[0]:
        raise ValueError(f"a command needs 1 to {ENTRIES_MAX} arguments, the first not empty")
    if len(what.env) > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} environment entries")
    if len(what.groups) > GROUPS_MAX:
        raise ValueError(f"more than {GROUPS_MAX} groups")
    flags = (what.size is not None) | 2 * what.stdin_at_end
    parts = [struct.pack("<BIIH", flags, what.uid, what.gid, len(what.groups))]
    parts += [struct.pack("<I", group) for group in what.groups]
    parts.append(_bytes(what.cwd))
    for entries in (what.argv, what.env):
        parts.append(struct.pack("<I", len(entries)))
        parts += [_bytes(entry) for entry in entries]
    parts.append(struct.pack("<HH", *what.size or (0, 0)))
    return _continued(Kind.SPAWN, b"".join(parts), process=process)


def signal_frame(process: int, number: int) -> bytes:
    """SIGNAL, a Linux signal number."""
    return frame(Kind.SIGNAL, process=process, payload=struct.pack("<I", number))


def window_frame(process: int, stream: Stream, more: int) -> bytes:
    """WINDOW: the guest may send `more` further bytes on `stream`."""
    return frame(Kind.WINDOW, process=process, payload=struct.pack("<B3xI", stream, more))
