# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An evil twin of a device that QEMU itself emulates: it writes into the rings that the guest shares with QEMU.

QEMU's monitor says where the rings are. Its test protocol (-qtest, docs/devel/testing/qtest.rst) reads and writes the
guest's memory and raises interrupts as the device would: a message to the local APIC, with what the guest's driver
wrote into the device's MSI-X table.
"""

import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.attack.guests.monitor import Monitor
from tools.attack.vhost.ring import DESCRIPTOR
from tools.pipeline.base.errors import BuildError

_LIMIT = 120.0  # seconds without an answer
_WRAP = 0xFFFF
_VECTOR = 1  # of the device's rings; the first one is for its configuration


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Where one of the device's queues lies, and how far QEMU and its twin have come in it."""

    index: int
    table: int
    available: int
    used: int
    size: int
    next_available: int
    next_used: int


class Twin:
    """The twin of the guest's only virtio-serial device; `path` is the socket of QEMU's -qtest.

    `name` is the device's on QEMU's command line, needed for interrupts only.
    """

    def __init__(self, monitor: Monitor, path: Path, name: str = "") -> None:
        self._monitor = monitor
        self._name = name
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LIMIT)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rwb")
        self._forged: dict[int, int] = {}  # how many buffers of each queue QEMU does not know to be used
        self._message: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._socket.close()

    def _say(self, line: str) -> str:
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()
        answer = self._stream.readline().decode().strip()
        if not answer.startswith("OK"):
            raise BuildError(f"QEMU's test protocol says {answer!r} to {line[:40]!r}")
        return answer.removeprefix("OK").strip()

    def read(self, address: int, size: int) -> bytes:
        """Guest-physical memory."""
        return bytes.fromhex(self._say(f"read {address:#x} {size:#x}").removeprefix("0x"))

    def write(self, address: int, data: bytes) -> None:
        """Guest-physical memory."""
        self._say(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def queue(self, index: int) -> Queue:
        """As it is now."""
        devices = self._monitor.execute("x-query-virtio")
        (path,) = (device["path"] for device in devices if device["name"] == "virtio-serial")
        seen = self._monitor.execute("x-query-virtio-queue-status", path=path, queue=index)
        ahead = self._forged.get(index, 0)
        return Queue(
            index=index,
            table=seen["vring-desc"],
            available=seen["vring-avail"],
            used=seen["vring-used"],
            size=seen["vring-num"],
            next_available=(seen["last-avail-idx"] + ahead) & _WRAP,
            next_used=(seen["used-idx"] + ahead) & _WRAP,
        )

    def head(self, queue: Queue) -> int:
        """The next chain that the driver has made available and QEMU has not taken."""
        (head,) = struct.unpack("<H", self.read(queue.available + 4 + 2 * (queue.next_available % queue.size), 2))
        assert isinstance(head, int)
        return head

    def complete(self, queue: Queue, identity: int, length: int, *, ahead: int = 1) -> None:
        """Write an entry of the used ring, and move the index `ahead`; QEMU itself knows nothing of it."""
        self.write(queue.used + 4 + 8 * (queue.next_used % queue.size), struct.pack("<II", identity, length))
        self.write(queue.used + 2, struct.pack("<H", (queue.next_used + ahead) & _WRAP))
        self._forged[queue.index] = self._forged.get(queue.index, 0) + ahead
        self.interrupt()

    def message(self, queue: Queue, data: bytes, length: int | None = None) -> None:
        """Fill the next buffer that the driver has made available, and complete it."""
        head = self.head(queue)
        address, _, _, _ = DESCRIPTOR.unpack(self.read(queue.table + DESCRIPTOR.size * head, DESCRIPTOR.size))
        self.write(address, data)
        self.complete(queue, head, len(data) if length is None else length)

    def interrupt(self) -> None:
        """The device's message-signalled interrupt."""
        self._message = self._message or self._signal()
        address, value = self._message
        self._say(f"writel {address:#x} {value:#x}")

    def _signal(self) -> tuple[int, int]:
        functions = self._monitor.human("info pci").split("  Bus ")
        found = [text for text in functions if f'id "{self._name}"' in text]
        table = re.search(r"BAR1: 32 bit memory at (0x[0-9a-f]+)", found[0]) if found else None
        if table is None:
            raise BuildError(f"QEMU shows no MSI-X table for {self._name}")
        low, high, value = struct.unpack("<III", self.read(int(table[1], 16) + 16 * _VECTOR, 12))
        return high << 32 | low, value
