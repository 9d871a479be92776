# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One connection with QEMU: the device's side of vhost-user, until QEMU hangs up."""

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from tools.attack.vhost import wire
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.memory import Memory
from tools.attack.vhost.ring import Ring
from tools.attack.vhost.wire import Message, Request

_ADDRESSES = struct.Struct("<IIQQQQ")  # index, flags, descriptors, used, available, log
_CONFIG = struct.Struct("<III")  # offset, size, flags
_QUEUES_MAX = 64


@dataclass(kw_only=True)
class _Queue:
    """What QEMU has said of a queue so far."""

    size: int = 0
    base: int = 0
    addresses: tuple[int, int, int] | None = None
    call: int | None = None
    kick: int | None = None
    ring: Ring | None = None


class Session:
    """Answers QEMU's messages and the driver's kicks."""

    def __init__(self, connection: socket.socket, disk: Disk) -> None:
        self._connection = connection
        self._disk = disk
        self._memory = Memory()
        self._queues: dict[int, _Queue] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)
        self._events: socket.socket | None = None
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._gone = False
        disk.config_changed = self._config_changed
        disk.hang_up = self._hang_up
        disk.later = self._later

    def run(self) -> None:
        """Until QEMU, or the disk, hangs up."""
        try:
            while not self._gone:
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        message = wire.receive(self._connection)
                        if message is None:
                            return
                        self._answer(message)
                    else:
                        self._kicked(key.data)
                self._due()
        finally:
            self._close()

    def _patience(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, min(when for when, _ in self._timers) - time.monotonic())

    def _due(self) -> None:
        now = time.monotonic()
        due = [action for when, action in self._timers if when <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for action in due:
            action()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, action))

    def _kicked(self, queue: _Queue) -> None:
        assert queue.kick is not None
        with contextlib.suppress(BlockingIOError):
            os.read(queue.kick, 8)
        if queue.ring is not None:
            self._disk.serve(queue.ring)

    def _answer(self, message: Message) -> None:
        payload = self._value(message)
        if payload is not None:
            wire.reply(self._connection, message, payload)
        else:
            self._take(message)
            if message.flags & wire.NEED_REPLY:
                wire.reply(self._connection, message, bytes(8))

    def _value(self, message: Message) -> bytes | None:
        """The answer to a question; None when it is none."""
        match message.request:
            case Request.GET_FEATURES:
                return self._disk.features().to_bytes(8, "little")
            case Request.GET_PROTOCOL_FEATURES:
                return wire.OFFERED.to_bytes(8, "little")
            case Request.GET_QUEUE_NUM:
                return _QUEUES_MAX.to_bytes(8, "little")
            case Request.GET_CONFIG:
                offset, size, flags = _CONFIG.unpack_from(message.payload)
                config = self._disk.config().pack()[offset : offset + size].ljust(size, b"\0")
                return _CONFIG.pack(offset, size, flags) + config
            case Request.GET_VRING_BASE:
                index, _ = message.state
                queue = self._queue(index)
                base = queue.ring.next_available if queue.ring else queue.base
                self._stop(queue)
                return struct.pack("<II", index, base)
        return None

    def _take(self, message: Message) -> None:
        match message.request:
            case Request.SET_FEATURES:
                self._disk.accepted(message.number)
            case Request.SET_MEM_TABLE:
                self._memory = Memory.mapped(message.payload, message.descriptors)
            case Request.SET_BACKEND_REQ_FD:
                self._events = socket.socket(fileno=message.descriptors[0])
            case Request.SET_VRING_NUM:
                self._queue(message.state[0]).size = message.state[1]
            case Request.SET_VRING_BASE:
                self._queue(message.state[0]).base = message.state[1]
            case Request.SET_VRING_ADDR:
                index, _, table, used, available, _ = _ADDRESSES.unpack_from(message.payload)
                self._queue(index).addresses = (table, available, used)
            case Request.SET_VRING_CALL:
                queue = self._queue(message.number & 0xFF)
                old, queue.call = queue.call, next(iter(message.descriptors), None)
                if queue.ring is not None:
                    queue.ring.call = queue.call
                wire.close(() if old is None else (old,))
            case Request.SET_VRING_KICK:
                self._start(self._queue(message.number & 0xFF), message.descriptors)
            case _:
                wire.close(message.descriptors)

    def _queue(self, index: int) -> _Queue:
        if index >= _QUEUES_MAX:
            raise ValueError(f"queue {index} of {_QUEUES_MAX}")
        return self._queues.setdefault(index, _Queue())

    def _start(self, queue: _Queue, descriptors: tuple[int, ...]) -> None:
        self._stop(queue)
        if not descriptors or queue.addresses is None:
            wire.close(descriptors)
            return
        (queue.kick,) = descriptors
        table, available, used = (self._memory.guest_address(user) for user in queue.addresses)
        queue.ring = Ring(self._memory, size=queue.size, table=table, available=available, used=used, base=queue.base)
        queue.ring.call = queue.call
        self._selector.register(queue.kick, selectors.EVENT_READ, queue)
        # What the driver made available before there was anybody to kick.
        self._disk.serve(queue.ring)

    def _stop(self, queue: _Queue) -> None:
        if queue.kick is not None:
            self._selector.unregister(queue.kick)
            os.close(queue.kick)
        queue.kick, queue.ring = None, None

    def _config_changed(self) -> None:
        if self._events is not None:
            wire.send(self._events, wire.CONFIG_CHANGED)

    def _hang_up(self) -> None:
        self._gone = True

    def _close(self) -> None:
        for queue in self._queues.values():
            self._stop(queue)
            wire.close(() if queue.call is None else (queue.call,))
        self._selector.close()
        self._connection.close()
        if self._events is not None:
            self._events.close()
