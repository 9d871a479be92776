# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Calls to a service: every one has a deadline, every message a bound, and what fails is one line.

gRPC's own messages name files and lines of its sources; of them only the status and the service's words are told.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from tools.pipeline.base import ambient, files
from tools.pipeline.remote.reapi.address import Address
from tools.sev.errors import printable

MESSAGE = 4 << 20
"""Bytes of a message that every server and client takes: gRPC's own default."""

_ROOM = 64 << 10  # bytes around a payload of the full size
_CALL = 60.0  # seconds for a call with one answer
_TRIES, _PAUSE = 3, 0.5  # of a call that the service may take again, and seconds before the second
# Milliseconds between signs of life on a silent connection, and for the answer to one. A server takes one in five
# minutes, unless it is told otherwise, and ends a connection with more of them: ENHANCE_YOUR_CALM,
# GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS in gRPC's core, proposal A8.
_ALIVE, _ANSWER = 330_000, 20_000
HELD = 20.0  # seconds after which a connection that breaks was a good one
_AGAIN = frozenset({"UNAVAILABLE", "ABORTED"})
_MOST = 300  # characters of a service's words that are shown

_Asked = TypeVar("_Asked", bound=Message)
_Answer = TypeVar("_Answer", bound=Message)


class RemoteError(Exception):
    """The service cannot be used, or must not be believed; nothing of the build is at fault. One line."""

    def __init__(self, what: str, *, code: str = "") -> None:
        super().__init__(what)
        self.code = code


@dataclass(kw_only=True)
class Traffic:
    """Bytes of messages both ways, and of the blobs in those that were sent; for benchmarks and progress."""

    sent: int = 0
    received: int = 0
    blobs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, *, sent: int = 0, received: int = 0, blobs: int = 0) -> None:
        """Some more."""
        with self._lock:
            self.sent += sent
            self.received += received
            self.blobs += blobs


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How long something may take in all: until that moment of the monotonic clock, in seconds."""

    end: float
    reason: str = "takes too long"

    @staticmethod
    def of(seconds: float, reason: str = "takes too long") -> "Limit":
        """From now on."""
        return Limit(end=ambient.monotonic() + seconds, reason=reason)

    def left(self) -> float:
        """Seconds; RemoteError when there are none."""
        left = self.end - ambient.monotonic()
        if left <= 0:
            raise RemoteError(self.reason, code="DEADLINE_EXCEEDED")
        return left

    def call(self) -> float:
        """The deadline of a call that has one answer."""
        return min(self.left(), _CALL)


class Attempts:
    """Tries at the same thing: an error that may pass is swallowed, after a pause, until there were too many."""

    def __init__(self, limit: Limit, *, most: int = _TRIES) -> None:
        self._limit, self._most = limit, most
        self._made = 0

    def progress(self) -> None:
        """Something came through: the tries are counted anew."""
        self._made = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One try. Of an hour's waiting many a connection may break: one that held on for long is none of the many."""
        self._made += 1
        began = ambient.monotonic()
        try:
            yield
        except RemoteError as error:
            if ambient.monotonic() - began >= HELD:
                self.progress()
            if self._made >= self._most or error.code not in _AGAIN:
                raise
            ambient.sleep(min(_PAUSE * self._made, self._limit.left()))


class Connection:
    """One channel to a service, which gRPC opens when it is first used."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.traffic = Traffic()
        options = [
            ("grpc.max_receive_message_length", MESSAGE + _ROOM),
            # Whoever is gone without a word, a machine without power, is noticed within six minutes.
            ("grpc.keepalive_time_ms", _ALIVE),
            ("grpc.keepalive_timeout_ms", _ANSWER),
            ("grpc.http2.max_pings_without_data", 0),
            # What the environment says of proxies is for the web.
            ("grpc.enable_http_proxy", 0),
        ]
        if address.secure:
            self.channel = grpc.secure_channel(address.target, _credentials(address), options)
        else:
            self.channel = grpc.insecure_channel(address.target, options)

    def close(self) -> None:
        """End it; calls that are under way fail."""
        self.channel.close()

    def call(
        self, method: "grpc.UnaryUnaryMultiCallable[_Asked, _Answer]", asked: _Asked, *, limit: "Limit"
    ) -> _Answer:
        """One question, one answer, which may be asked again. RemoteError when there is none in time."""
        attempts = Attempts(limit)
        while True:
            with attempts.one(), told():
                self.traffic.count(sent=asked.ByteSize())
                answer = method(asked, timeout=limit.call())
                self.traffic.count(received=answer.ByteSize())
                return answer


def _credentials(address: Address) -> grpc.ChannelCredentials:
    if address.ca is None:
        return grpc.ssl_channel_credentials()
    files.check_authorities(address.ca, f"remote.toml: [service] ca = {address.ca}")
    return grpc.ssl_channel_credentials(address.ca.read_bytes())


@contextmanager
def told() -> Iterator[None]:
    """gRPC's errors as RemoteError."""
    try:
        yield
    except grpc.RpcError as error:
        raise translated(error) from None


def translated(error: grpc.RpcError) -> RemoteError:
    """The status and the first line of the service's words."""
    # Those that calls raise are Calls, too, and know their status.
    code = error.code() if isinstance(error, grpc.Call) else None
    words = (error.details() or "") if isinstance(error, grpc.Call) else str(error)
    name = code.name if code else "UNKNOWN"
    return RemoteError(said(name, words), code=name)


def said(name: str, words: str) -> str:
    """What a service answers, on one line that cannot do anything to a terminal."""
    lines = words.strip().splitlines()
    return printable(f"{name.lower().replace('_', ' ')}: {lines[0][:_MOST]}" if lines else name.lower())
