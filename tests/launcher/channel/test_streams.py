# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A session whose streams are whatever its caller gives, with several processes at once."""

import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from tests.launcher.standin_frames import frame, hello
from tools.launcher.base.errors import GuestError, LauncherError, WorkloadError
from tools.launcher.channel.link import Container, Link
from tools.launcher.channel.protocol import RootKind
from tools.launcher.channel.relay import Relay
from tools.launcher.channel.requests import Process
from tools.launcher.channel.session import Session, listen
from tools.launcher.channel.streams import Signals, Streams

Frame = tuple[int, int, bytes]


@dataclass
class Machine:
    """In QEMU's place; it never ends and says nothing."""

    stderr: IO[bytes]
    pid: int = 0
    stderr_open: bool = True
    said: tuple[str, ...] = ()
    ended: int | None = None

    def drain(self) -> None:
        raise AssertionError("it says nothing")

    def stop(self, *, grace: float = 0.0) -> None:
        raise AssertionError(f"it is alive and need not be stopped, not even in {grace} s")


@dataclass
class Guest:
    """The agent's end of the socket: sends frames, keeps what it gets."""

    connection: socket.socket
    frames: list[Frame] = field(default_factory=list)

    def send(self, *data: bytes) -> None:
        self.connection.sendall(b"".join(data))

    def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        """Read up to the frame."""
        while True:
            kind, _, _, process, length = struct.unpack("<BBHII", self._exactly(12))
            self.frames.append((kind, process, self._exactly(length)))
            if wanted(self.frames[-1]):
                return self.frames[-1]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.connection.recv(size - len(data)) or pytest.fail("the host left")
        return data


@dataclass
class Bench:
    session: Session
    guest: Guest
    stack: ExitStack

    def streams(self, stdin: bytes | None = b"") -> tuple[Streams, IO[bytes], IO[bytes]]:
        """Pipes: what the process reads is there, what it writes can be read."""
        ends = []
        for _ in range(2):
            read, write = os.pipe()
            self.stack.callback(os.close, write)
            ends.append((self.stack.enter_context(os.fdopen(read, "rb")), write))
        source = None
        if stdin is not None:
            source, write = os.pipe()
            self.stack.callback(os.close, source)
            os.write(write, stdin)
            os.close(write)
        return Streams(stdin=source, stdout=ends[0][1], stderr=ends[1][1]), ends[0][0], ends[1][0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A guest that is ready."""
    with ExitStack() as stack:
        read, write = os.pipe()
        stack.callback(os.close, write)
        machine = Machine(stderr=stack.enter_context(os.fdopen(read, "rb")))
        listener = stack.enter_context(listen(tmp_path, "agent.sock"))
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(str(tmp_path / "agent.sock"))
        guest = Guest(connection)
        signals = stack.enter_context(Signals())
        link = Link(Container(root_kind=RootKind.TAR, root_length=512))
        session = Session(link=link, machine=machine, listener=listener, signals=signals)
        guest.send(hello())
        session.wait_hello(60)
        guest.send(frame(0x31, 0, bytes(4)))
        session.wait_ready(60)
        yield Bench(session=session, guest=guest, stack=stack)
        session.close()


def started(number: int) -> bytes:
    return frame(0x32, number, struct.pack("<I", 70 + number))


def exited(number: int, code: int) -> bytes:
    return frame(0x35, number, struct.pack("<BBHI", 0, 0, 0, code))


def finished(*relays: Relay) -> Callable[[], bool]:
    return lambda: all(relay.finished for relay in relays)


def test_two_processes_with_streams_of_their_own(bench: Bench) -> None:
    first_streams, first_out, _ = bench.streams(b"for the first")
    second_streams, second_out, second_err = bench.streams(b"for the second")
    first = bench.session.start(Process(argv=[b"a"]), first_streams)
    second = bench.session.start(Process(argv=[b"b"]), second_streams)

    def play() -> None:
        guest = bench.guest
        guest.until(lambda f: f[:2] == (0x11, 2))
        guest.send(started(2), started(1), frame(0x33, 2, b"2 out"), frame(0x33, 1, b"1 out"))
        left = {1, 2}
        while left:
            left.discard(guest.until(lambda f: f[0] == 0x13)[1])
        guest.send(frame(0x34, 2, b"2 err"), exited(1, 5), frame(0x33, 2, b", more"), exited(2, 6))

    thread = threading.Thread(target=play)
    thread.start()
    bench.session.serve(finished(first))
    assert first.status() == 5
    bench.session.serve(finished(second))
    assert second.status() == 6
    thread.join()
    os.set_blocking(first_out.fileno(), False)
    assert os.read(first_out.fileno(), 99) == b"1 out"
    assert os.read(second_out.fileno(), 99) == b"2 out, more"
    assert os.read(second_err.fileno(), 99) == b"2 err"
    given = {f[1]: f[2] for f in bench.guest.frames if f[0] == 0x12}
    assert given == {1: b"for the first", 2: b"for the second"}


def test_a_process_is_started_in_a_container_that_lives(bench: Bench) -> None:
    """exec: the second comes when the first has long been running, and may end before it, or not be found."""
    first = bench.session.start(Process(argv=[b"a"]), bench.streams()[0])
    bench.guest.send(started(1), frame(0x33, 1, b"x"))
    bench.session.serve(lambda: bool(first.process.life))
    second = bench.session.start(Process(argv=[b"b"], stdin_at_end=True), bench.streams(None)[0])
    third = bench.session.start(Process(argv=[b"c"], stdin_at_end=True), bench.streams(None)[0])
    bench.guest.send(started(2), exited(2, 3), frame(0x3F, 3, struct.pack("<HI", 5, 4) + b"nope"))
    bench.session.serve(finished(second, third))
    assert second.status() == 3
    with pytest.raises(WorkloadError, match="nope") as info:
        third.status()
    assert info.value.exit_status == 127
    bench.guest.send(exited(1, 0))
    bench.session.serve(finished(first))
    assert first.status() == 0


def test_lost_output_is_the_process_it_belongs_to(bench: Bench) -> None:
    with Path("/dev/full").open("wb") as full:
        good, out, _ = bench.streams(None)
        first = bench.session.start(Process(argv=[b"a"]), Streams(stdin=None, stdout=full.fileno(), stderr=2))
        second = bench.session.start(Process(argv=[b"b"]), good)
        bench.guest.send(started(1), started(2), frame(0x33, 1, b"x"), frame(0x33, 2, b"y"), exited(1, 0), exited(2, 0))
        bench.session.serve(finished(first, second))
    assert second.status() == 0
    assert os.read(out.fileno(), 99) == b"y"
    with pytest.raises(LauncherError, match="stdout: No space left on device; output was lost"):
        first.status()


def test_two_processes_on_one_descriptor(bench: Bench) -> None:
    streams, out, _ = bench.streams(None)
    relays = [bench.session.start(Process(argv=[b"a"]), streams) for _ in range(2)]
    bench.guest.send(
        started(1), started(2), frame(0x33, 1, b"one "), frame(0x33, 2, b"two "), exited(1, 0), exited(2, 0)
    )
    bench.session.serve(finished(*relays))
    assert sorted(os.read(out.fileno(), 99).split()) == [b"one", b"two"]


@pytest.mark.parametrize(("seconds", "talks", "ends"), [(600, True, True), (0, True, False), (0, False, True)])
def test_three_signals_end_the_guest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, seconds: int, talks: bool, ends: bool
) -> None:
    """Within so many seconds whatever it says, and at any distance when it says nothing."""
    monkeypatch.setattr("tools.launcher.channel.session._INSISTENCE", float(seconds))
    bench.session._signals.early = False
    streams, out, _ = bench.streams(None)
    relay = bench.session.start(Process(argv=[b"a"], stdin_at_end=True), streams)
    bench.guest.send(started(1))
    bench.session.serve(lambda: bool(relay.process.life))
    with pytest.raises(GuestError, match="3 signals") if ends else ExitStack():
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGTERM)
            bench.session.serve(iter((False, True)).__next__)  # one turn takes it
            bench.session.serve(lambda: not bench.session.link.outgoing)
            assert bench.guest.until(lambda f: f[0] == 0x14)[2] == struct.pack("<I", signal.SIGTERM)
            if talks:
                bench.guest.send(frame(0x33, 1, b"x"))
                bench.session.serve(lambda: bool(select.select([out], [], [], 0)[0]))
                os.read(out.fileno(), 1)


def test_a_guest_that_floods_and_never_reads_is_not_read_either(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of its output, passed on, costs a frame that waits for it here."""
    monkeypatch.setattr("tools.launcher.channel.session._UNREAD_MAX", 1 << 14, raising=False)
    streams, out, _ = bench.streams(None)
    relay = bench.session.start(Process(argv=[b"a"], stdin_at_end=True), streams)
    most, over = 4000, threading.Event()
    wake, woken = os.pipe()
    bench.stack.callback(os.close, wake)
    bench.session.watch(wake, lambda: None)

    def flood() -> None:
        bench.guest.send(started(1))
        for _ in range(most):
            bench.guest.send(frame(0x33, 1, b"x"))
            if not select.select([out], [], [], 2)[0]:
                break
            os.read(out.fileno(), 1)
        over.set()
        os.close(woken)

    thread = threading.Thread(target=flood)
    thread.start()
    bench.session.serve(over.is_set)
    thread.join()
    bench.session.watch(wake, None)
    assert len(bench.session.link.outgoing) < 1 << 15
    # Once it reads, it is read.
    thread = threading.Thread(target=lambda: bench.guest.until(lambda f: f[0] == 0x16))
    thread.start()
    bench.guest.send(exited(1, 4))
    bench.session.serve(finished(relay))
    assert relay.status() == 4
    bench.session.link.shut_down()
    bench.session.serve(lambda: not bench.session.link.outgoing)
    thread.join()


def test_who_was_let_go_in_a_round_of_events_is_not_called_in_it(bench: Bench) -> None:
    """Two ends, each of which closes both when it is called, as a relay's do: the second is not called."""
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def close_both(number: int) -> None:
        called.append(number)
        for end, _ in pairs:
            bench.session.watch(end.fileno(), None)
        for end, _ in pairs:
            end.close()

    for number, (end, other) in enumerate(pairs):
        bench.session.watch(end.fileno(), lambda number=number: close_both(number))  # type: ignore[misc]  # bound for each
        other.close()
    bench.session.serve(lambda: bool(called))
    assert len(called) == 1
