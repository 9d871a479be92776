# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Agent protocol, version 2: frames, and what the guest says (docs/protocol.md). What the host asks: requests.py.

Pure encoding and decoding. What the guest sends is hostile: every length is bounded before a byte is
kept, every field is checked, and the only exception that leaves is ProtocolError.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from tools.launcher.channel.attest import Report, decode_report
from tools.launcher.channel.payload import ProtocolError
from tools.launcher.channel.payload import fixed as _fixed
from tools.launcher.channel.payload import need as _need
from tools.launcher.channel.payload import text as _text

HEADER = struct.Struct("<BBHII")
PAYLOAD_MAX = 65_536
CONTINUED_MAX = 1 << 20
ENTRIES_MAX = 4096
GROUPS_MAX = 1024
EMPTY_MAX = 1024
WINDOW_MAX = (1 << 31) - 1
MAGIC = b"SEVA"
VERSION = 2
DEFAULT_WINDOW = 256 << 10
FLAG_MORE = 1


class Kind(IntEnum):
    """Message types."""

    HELLO = 0x01
    CONTAINER = 0x10
    SPAWN = 0x11
    STDIN = 0x12
    STDIN_EOF = 0x13
    SIGNAL = 0x14
    RESIZE = 0x15
    SHUTDOWN = 0x16
    WORKLOAD = 0x17
    FILE = 0x18
    PREPARE = 0x19
    RUN = 0x1A
    ATTEST = 0x1B
    NETWORK = 0x1C
    WINDOW = 0x20
    READY = 0x31
    STARTED = 0x32
    STDOUT = 0x33
    STDERR = 0x34
    EXITED = 0x35
    REFUSED = 0x36
    REPORT = 0x37
    ERROR = 0x3F


class RootKind(IntEnum):
    """How the root file system lies on the disk."""

    TAR = 1
    EROFS = 2


class Stream(IntEnum):
    """A process's standard streams."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class ErrorCode(IntEnum):
    """Codes of ERROR."""

    PROTOCOL = 1
    UNSUPPORTED = 2
    BAD_VALUE = 3
    ROOTFS = 4
    NOT_FOUND = 5
    NOT_EXECUTABLE = 6
    SPAWN = 7
    INTERNAL = 8
    REFUSED = 9


@dataclass(frozen=True, kw_only=True)
class Hello:
    """The agent's HELLO; `stdin_window` in bytes."""

    lowest: int
    highest: int
    capabilities: int
    stdin_window: int
    debug: bool
    bound: bool


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The container's root is in place."""

    verity: bool


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process runs; `pid` is the guest's number for it."""

    process: int
    pid: int


@dataclass(frozen=True, kw_only=True)
class Output:
    """Bytes of a process's stdout or stderr."""

    process: int
    stream: Stream
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Window:
    """The guest takes `more` further bytes of stdin; 0 means that the process closed it."""

    process: int
    more: int


@dataclass(frozen=True, kw_only=True)
class Exited:
    """A process ended: exit status 0…255, or a signal number when `signalled`."""

    process: int
    signalled: bool
    core: bool
    code: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """ERROR; process 0 is the connection itself."""

    process: int
    code: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A message of ours had no effect, because the workload document does not open it; `kind` as it was sent."""

    process: int
    kind: int
    message: str


Message = Hello | Ready | Started | Output | Window | Exited | Failure | Refused | Report


def frame(kind: Kind, *, process: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame on the wire."""
    if len(payload) > PAYLOAD_MAX:
        raise ValueError("payload too long for one frame")
    return HEADER.pack(kind, flags, 0, process, len(payload)) + payload


class Decoder:
    """Cuts the byte stream into messages; keeps one frame at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes as they come; give the messages that are complete. ProtocolError is final.

        One by one, so that a caller who has heard enough never looks at what follows.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, flags, reserved, process, length = HEADER.unpack_from(self._buffer)
            if flags or reserved:
                raise ProtocolError(f"message {kind:#04x} with flags {flags:#x}, reserved {reserved:#x}")
            if length > PAYLOAD_MAX:
                raise ProtocolError(f"message {kind:#04x} of {length} bytes")
            if kind not in _DECODERS:
                raise ProtocolError(f"unknown message {kind:#04x}")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield _DECODERS[kind](process, payload)


def _hello(process: int, payload: bytes) -> Hello:
    _need(process == 0, "HELLO for a process")
    _need(payload[:4] == MAGIC, "HELLO without its magic")
    lowest, highest = _fixed("<HH", payload[4:8], "HELLO")
    _need(1 <= lowest <= highest, f"HELLO with versions {lowest} to {highest}")
    # Another version's HELLO may have another length.
    _need(lowest <= VERSION <= highest, f"the agent speaks versions {lowest} to {highest}, not {VERSION}")
    capabilities, window, profile, binding = _fixed("<IIBB", payload[8:], "HELLO")
    _need(window <= WINDOW_MAX, f"HELLO with a window of {window}")
    _need(profile in (0, 1) and binding in (0, 1), f"HELLO with profile {profile}, binding {binding}")
    return Hello(
        lowest=lowest,
        highest=highest,
        capabilities=capabilities,
        stdin_window=window,
        debug=profile == 1,
        bound=binding == 1,
    )


def _ready(process: int, payload: bytes) -> Ready:
    _need(process == 0, "READY for a process")
    verity, *zero = _fixed("<4B", payload, "READY")
    _need(verity in (0, 1) and not any(zero), "READY with values that mean nothing")
    return Ready(verity=verity == 1)


def _started(process: int, payload: bytes) -> Started:
    _need(process != 0, "STARTED for no process")
    (pid,) = _fixed("<I", payload, "STARTED")
    return Started(process=process, pid=pid)


def _stdout(process: int, payload: bytes) -> Output:
    _need(process != 0, "STDOUT for no process")
    return Output(process=process, stream=Stream.STDOUT, data=payload)


def _stderr(process: int, payload: bytes) -> Output:
    _need(process != 0, "STDERR for no process")
    return Output(process=process, stream=Stream.STDERR, data=payload)


def _window(process: int, payload: bytes) -> Window:
    _need(process != 0, "WINDOW for no process")
    stream, zero1, zero2, zero3, more = _fixed("<4BI", payload, "WINDOW")
    _need(stream == Stream.STDIN and not (zero1 or zero2 or zero3), "WINDOW for another stream than stdin")
    return Window(process=process, more=more)


def _exited(process: int, payload: bytes) -> Exited:
    _need(process != 0, "EXITED for no process")
    kind, core, zero, code = _fixed("<BBHI", payload, "EXITED")
    _need(kind in (0, 1) and core in (0, 1) and zero == 0, "EXITED with values that mean nothing")
    _need(1 <= code <= 64 if kind else code <= 255, f"EXITED with code {code}")
    return Exited(process=process, signalled=kind == 1, core=core == 1, code=code)


def _error(process: int, payload: bytes) -> Failure:
    _need(len(payload) >= 6, f"ERROR of {len(payload)} bytes")
    (code,) = struct.unpack_from("<H", payload)
    _need(code in set(ErrorCode), f"ERROR with code {code}")
    return Failure(process=process, code=code, message=_text(payload[2:], "ERROR"))


def _refused(process: int, payload: bytes) -> Refused:
    _need(len(payload) >= 8 and not any(payload[1:4]), "REFUSED with values that mean nothing")
    return Refused(process=process, kind=payload[0], message=_text(payload[4:], "REFUSED"))


_DECODERS: dict[int, Callable[[int, bytes], Message]] = {
    int(Kind.HELLO): _hello,
    int(Kind.READY): _ready,
    int(Kind.STARTED): _started,
    int(Kind.STDOUT): _stdout,
    int(Kind.STDERR): _stderr,
    int(Kind.WINDOW): _window,
    int(Kind.EXITED): _exited,
    int(Kind.REFUSED): _refused,
    int(Kind.REPORT): decode_report,
    int(Kind.ERROR): _error,
}
