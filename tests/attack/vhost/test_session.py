# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The vhost-user protocol, spoken by a stand-in for QEMU over a socket, with the guest's memory in a memfd."""

import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.vhost.driver import AVAILABLE, BASE, SIZE, TABLE, USED, Driver, ask
from tools.attack.vhost import wire
from tools.attack.vhost.backend import Backend
from tools.attack.vhost.disk import HONEST, SECTOR, Config, Disk
from tools.attack.vhost.lies.config import Shrinks
from tools.attack.vhost.memory import Memory
from tools.attack.vhost.session import Session
from tools.attack.vhost.wire import Request
from tools.pipeline.base.errors import BuildError

CONTENT = memoryview(bytes(range(256)) * 64)
USER = 0x7F0000000000  # where QEMU itself has the memory
_HEADER = struct.Struct("<III")


class Qemu:
    """QEMU's end."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def say(self, request: int, payload: bytes = b"", descriptors: list[int] | None = None, flags: int = 1) -> None:
        data = _HEADER.pack(request, flags, len(payload)) + payload
        socket.send_fds(self.link, [data], descriptors or [])

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        self.say(request, payload)
        return self.answer()

    def answer(self) -> bytes:
        request, flags, size = _HEADER.unpack(self.link.recv(_HEADER.size, socket.MSG_WAITALL))
        assert flags == 5, request
        return self.link.recv(size, socket.MSG_WAITALL) if size else b""


def config(answer: bytes) -> bytes:
    return answer[12:]


@pytest.fixture
def disk() -> Disk:
    return Disk(CONTENT, serial=b"rootfs", bait=range(0))


@pytest.fixture
def qemu(disk: Disk) -> Iterator[Qemu]:
    yield from connected(disk)


def connected(disk: Disk) -> Iterator[Qemu]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    thread = threading.Thread(target=Session(theirs, disk).run)
    thread.start()
    with ours:
        yield Qemu(ours)
    thread.join(20)
    assert not thread.is_alive()


def set_up(qemu: Qemu, driver: Driver) -> tuple[int, int]:
    """The messages with which QEMU starts a queue; kick and call."""
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, 4096 + SIZE)
    shared = memoryview(mmap.mmap(descriptor, 0))[4096:]
    shared[:] = driver.memory.at(BASE, SIZE)
    driver.memory = Memory([type(driver.memory.regions[0])(guest=BASE, size=SIZE, user=USER, view=shared)])
    kick, call = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
    qemu.say(Request.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, BASE, SIZE, USER, 4096), [descriptor])
    os.close(descriptor)
    qemu.say(Request.SET_VRING_NUM, struct.pack("<II", 0, driver.size))
    qemu.say(Request.SET_VRING_BASE, struct.pack("<II", 0, 0))
    table, available, used = (USER + place - BASE for place in (TABLE, AVAILABLE, USED))
    qemu.say(Request.SET_VRING_ADDR, struct.pack("<IIQQQQ", 0, 0, table, used, available, 0))
    qemu.say(Request.SET_VRING_CALL, (0).to_bytes(8, "little"), [call])
    qemu.say(Request.SET_VRING_KICK, (0).to_bytes(8, "little"), [kick])
    return kick, call


def test_what_is_offered(qemu: Qemu) -> None:
    assert int.from_bytes(qemu.ask(Request.GET_FEATURES), "little") == HONEST
    assert int.from_bytes(qemu.ask(Request.GET_PROTOCOL_FEATURES), "little") == wire.OFFERED


def test_the_configuration_space_in_pieces(qemu: Qemu) -> None:
    whole = Config(capacity=len(CONTENT) // SECTOR).pack()
    for offset, size in ((0, 60), (0, 8), (20, 4), (56, 200)):
        answer = qemu.ask(Request.GET_CONFIG, struct.pack("<III", offset, size, 0) + bytes(size))
        assert config(answer) == whole[offset : offset + size].ljust(size, b"\0")


def test_a_request_that_lies_there_before_the_start_and_one_that_is_kicked(qemu: Qemu, disk: Disk) -> None:
    driver = Driver()
    first = ask(driver, 1, 1024)
    kick, call = set_up(qemu, driver)
    qemu.ask(Request.GET_QUEUE_NUM)  # what came before has been done
    assert driver.entries() == [(first[0], 1025)]
    assert driver.read(first[1], 1024) == CONTENT[512:1536]
    second = ask(driver, 5, 512, indirect=True)
    os.eventfd_write(kick, 1)
    while driver.used_index != 2:
        qemu.ask(Request.GET_QUEUE_NUM)
    assert driver.read(second[1], 512) == CONTENT[2560:3072]
    assert os.eventfd_read(call) == 2
    assert disk.reads == 2
    assert qemu.ask(Request.GET_VRING_BASE, struct.pack("<II", 0, 0)) == struct.pack("<II", 0, 2)


def test_whoever_asks_for_a_reply_gets_one(qemu: Qemu) -> None:
    qemu.say(Request.SET_VRING_ENABLE, struct.pack("<II", 0, 1), flags=1 | wire.NEED_REPLY)
    assert qemu.answer() == bytes(8)


def test_a_capacity_that_changes_is_announced() -> None:
    shrinking = Shrinks(CONTENT, serial=b"", bait=range(8))
    for qemu in connected(shrinking):
        events, theirs = socket.socketpair()
        events.settimeout(20)
        qemu.say(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        theirs.close()
        driver = Driver()
        ask(driver, 0, 512)
        before = config(qemu.ask(Request.GET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8)))
        set_up(qemu, driver)
        assert _HEADER.unpack(events.recv(_HEADER.size, socket.MSG_WAITALL)) == (wire.CONFIG_CHANGED, 1, 0)
        after = config(qemu.ask(Request.GET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8)))
        assert (before, after) == ((32).to_bytes(8, "little"), (8).to_bytes(8, "little"))
        events.close()


def test_a_device_that_fails_says_so(tmp_path: Path, disk: Disk) -> None:
    """A row must not take its silence for the guest's."""
    with Backend(tmp_path / "s", disk) as backend, socket.socket(socket.AF_UNIX) as link:
        link.connect(str(tmp_path / "s"))
        link.settimeout(20)
        qemu = Qemu(link)
        qemu.ask(Request.GET_FEATURES)
        backend.check()
        qemu.say(Request.SET_VRING_NUM, struct.pack("<II", 99, 8))
        assert link.recv(1) == b""
        with pytest.raises(BuildError, match=r"the device failed by itself: ValueError: queue 99 of 64"):
            backend.check()


def test_nobody_comes(tmp_path: Path, disk: Disk) -> None:
    with Backend(tmp_path / "s", disk) as backend:
        assert backend.cpu_seconds() == 0
    backend.check()
