# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The codec: known bytes out, round trips in, and nothing but ProtocolError for whatever a guest sends."""

import dataclasses
import random
import struct

import pytest

from tests.launcher.standin_frames import frame, hello
from tools.launcher.channel import link as link_module
from tools.launcher.channel import protocol, requests
from tools.launcher.channel.link import Bound, Container, Life, Link, NoVerityError, Stage
from tools.launcher.channel.network import Address, Interface, Network, Route
from tools.launcher.channel.payload import ProtocolError
from tools.launcher.channel.protocol import (
    Decoder,
    Exited,
    Failure,
    Hello,
    Output,
    Ready,
    Started,
    Stream,
)
from tools.launcher.channel.requests import Process
from tools.sev.workload.document import Doors


def decode(data: bytes) -> list[protocol.Message]:
    return list(Decoder().feed(data))


def test_known_bytes() -> None:
    assert requests.host_hello().hex() == "01000000000000000c000000534556410200000000000400"
    assert requests.signal_frame(1, 15).hex() == "1400000001000000040000000f000000"
    assert requests.resize_frame(1, 24, 80).hex() == "15000000010000000400000018005000"
    assert requests.window_frame(1, Stream.STDERR, 5).hex() == "2000000001000000080000000200000005000000"
    container = requests.container(kind=protocol.RootKind.EROFS, length=4096, writable_limit=0, hostname=b"ab")
    assert container == bytes.fromhex("10000000 00000000 17000000 02 0010000000000000 0000000000000000 02000000 6162")
    process = Process(argv=[b"a"], env=[b"K=V"], cwd=b"/", uid=1, gid=2, groups=[3], stdin_at_end=True)
    assert requests.spawn(1, process) == bytes.fromhex(
        "11000000 01000000 2c000000 02 01000000 02000000 0100 03000000 01000000 2f"
        "01000000 01000000 61 01000000 03000000 4b3d56 0000 0000"
    )


def test_known_bytes_of_bound_guests() -> None:
    assert requests.workload(b"{}").hex() == "1700000000000000020000007b7d"
    assert requests.supplied_file(3, b"ab").hex() == "18000000000000000a00000003000000020000006162"
    assert requests.prepare(b"ab").hex() == "190000000000000006000000020000006162"
    what = requests.Run(doors=Doors(), entry=2, env=[b"K=V"], stdin_at_end=True)
    assert requests.run(1, what) == bytes.fromhex(
        "1a000000 01000000 17000000 02000000 02000000 01000000 03000000 4b3d56 0000 0000"
    )
    parts = requests.workload(bytes(protocol.PAYLOAD_MAX + 1))
    assert struct.unpack_from("<BBHII", parts) == (0x17, 1, 0, 0, protocol.PAYLOAD_MAX)
    assert struct.unpack_from("<BBHII", parts, 12 + protocol.PAYLOAD_MAX) == (0x17, 0, 0, 0, 1)
    with pytest.raises(ValueError, match="exceed"):
        requests.workload(bytes(protocol.CONTINUED_MAX + 1))


def test_known_bytes_of_a_network() -> None:
    own = Address(address=bytes((10, 7, 0, 2)), prefix=24)
    eth0 = Interface(name="eth0", mac=bytes(range(6)), mtu=1500, addresses=(own, Address(address=b"f" * 16, prefix=64)))
    everywhere = Address(address=bytes(4), prefix=0)
    gateway = Route(interface=0, destination=everywhere, gateway=b"\x0a\7\0\1", metric=3)
    source = dataclasses.replace(gateway, gateway=None, source=b"\x0a\7\0\2", on_link=True)
    network = Network(interfaces=(eth0,), routes=(gateway, source))
    interface = "000102030405 dc05 04000000 65746830 0200 04 0a070002 18" + "06" + "66" * 16 + "40"
    routes = "0200 00 01 03000000 04 00000000 00 04 0a070001 00 06 03000000 04 00000000 00 04 0a070002"
    payload = bytes.fromhex(f"01000000 {interface} {routes}")
    assert requests.network(network) == frame(0x1C, 0, payload)
    link = Link(Bound(document=b"{}", network=network))
    list(link.feed(hello(bound=1)))
    assert bytes(link.outgoing).endswith(requests.network(network) + requests.prepare(b""))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Network(interfaces=()), "1 to 8"),
        (Network(interfaces=(Interface(name="e", mac=bytes(6), mtu=1),) * 9), "not 9"),
        (Network(interfaces=(Interface(name="e" * 16, mac=bytes(6), mtu=1),)), "no Ethernet interface"),
        (Network(interfaces=(Interface(name="e", mac=bytes(5), mtu=1),)), "no Ethernet interface"),
    ],
)
def test_a_network_beyond_the_limits(network: Network, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        requests.network(network)


def bound_link(doors: Doors, *, commands: bool = False) -> tuple[Link, requests.Run]:
    """A bound guest that is ready."""
    link = Link(Bound(document=b"{}", hostname=b"box", files={1: b"b", 0: b"a"}, commands=commands))
    list(link.feed(hello(bound=1)))
    sent = requests.workload(b"{}") + requests.supplied_file(0, b"a") + requests.supplied_file(1, b"b")
    assert bytes(link.outgoing) == requests.host_hello() + sent + requests.prepare(b"box")
    list(link.feed(frame(0x31, 0, bytes(4))))
    link.outgoing.clear()
    return link, requests.Run(doors=doors)


def test_a_bound_guest_gets_only_what_its_document_opens() -> None:
    link, what = bound_link(Doors(signals=(15,)))
    process = link.spawn(what)
    assert not process.stdin_open
    link.outgoing.clear()
    link.send_signal(process, 9)
    assert not link.outgoing
    link.send_signal(process, 15)
    assert bytes(link.outgoing) == frame(0x14, 1, struct.pack("<I", 15))
    link, what = bound_link(Doors(stdin=True))
    assert link.spawn(what).stdin_open
    with pytest.raises(ValueError, match="says what runs"):
        link.spawn(Process(argv=[b"x"]))


def test_a_guest_whose_document_opens_commands_takes_any() -> None:
    link, _ = bound_link(Doors())
    with pytest.raises(ValueError, match="says what runs"):
        link.spawn(Process(argv=[b"x"]))
    link, _ = bound_link(Doors(), commands=True)
    process = link.spawn(Process(argv=[b"x"], uid=7))
    assert bytes(link.outgoing) == requests.spawn(1, Process(argv=[b"x"], uid=7))
    # All of its doors are open.
    assert process.stdin_open
    assert all(process.takes_signal(number) for number in range(1, 65))


def test_an_agent_that_is_bound_otherwise_is_refused() -> None:
    for bound in (0, 1):
        link = Link(Bound(document=b"{}") if not bound else Container(root_kind=protocol.RootKind.TAR, root_length=1))
        with pytest.raises(ProtocolError, match="the command line says otherwise"):
            list(link.feed(hello(bound=bound)))


def test_messages_from_the_guest() -> None:
    data = (
        hello()
        + frame(0x31, 0, b"\x01\0\0\0")
        + frame(0x32, 1, struct.pack("<I", 77))
        + frame(0x33, 1, b"out")
        + frame(0x34, 1, b"")
        + frame(0x20, 1, struct.pack("<B3xI", 0, 9))
        + frame(0x35, 1, struct.pack("<BBHI", 1, 1, 0, 11))
        + frame(0x3F, 2, struct.pack("<HI", 5, 3) + b"a\xffb")
    )
    wanted = [
        Hello(lowest=2, highest=2, capabilities=1, stdin_window=262144, debug=False, bound=False),
        Ready(verity=True),
        Started(process=1, pid=77),
        Output(process=1, stream=Stream.STDOUT, data=b"out"),
        Output(process=1, stream=Stream.STDERR, data=b""),
        protocol.Window(process=1, more=9),
        Exited(process=1, signalled=True, core=True, code=11),
        Failure(process=2, code=5, message="a\N{REPLACEMENT CHARACTER}b"),
    ]
    assert decode(data) == wanted
    decoder = Decoder()
    piecewise = [message for i in range(len(data)) for message in decoder.feed(data[i : i + 1])]
    assert piecewise == wanted


def test_an_unfinished_frame_is_bounded() -> None:
    decoder = Decoder()
    assert list(decoder.feed(struct.pack("<BBHII", 0x33, 0, 0, 1, 65536) + bytes(65535))) == []
    assert len(decoder._buffer) == 12 + 65535
    with pytest.raises(ProtocolError):
        decode(struct.pack("<BBHII", 0x33, 0, 0, 1, 65537))


def test_no_bytes_raise_anything_else() -> None:
    generator = random.Random(1)
    kinds = [0x01, 0x20, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3F]
    refused = 0
    for _ in range(20_000):
        length = generator.choice([0, 1, 4, 6, 8, 17, 21, generator.randrange(64)])
        payload = generator.choice([generator.randbytes(length), bytes(length), b"SEVA" + bytes(length)])
        data = struct.pack("<BBHII", generator.choice(kinds), 0, 0, generator.randrange(3), len(payload)) + payload
        link = ready()
        link.spawn(Process(argv=[b"x"]))
        try:
            list(link.feed(data))
        except ProtocolError:
            refused += 1
    assert 10_000 < refused < 20_000


def test_every_changed_byte_of_a_conversation_is_survived() -> None:
    created = hello() + frame(0x31, 0, bytes(4))
    ran = frame(0x32, 1, bytes(4)) + frame(0x33, 1, b"hello")
    ran += frame(0x20, 1, struct.pack("<B3xI", 0, 9)) + frame(0x35, 1, bytes(8))
    ended = 0
    for position in range(len(created + ran)):
        for value in (0x00, 0x01, 0x7F, 0xFF):
            data = bytearray(created + ran)
            data[position] = value
            link = Link(CONTAINER)
            try:
                list(link.feed(bytes(data[: len(created)])))
                process = link.spawn(Process(argv=[b"x"]))
                list(link.feed(bytes(data[len(created) :])))
            except (ProtocolError, ValueError):  # ValueError: no READY, so nothing can be spawned
                continue
            ended += process.life is Life.ENDED
    assert ended


@pytest.mark.parametrize(
    "process",
    [
        Process(argv=[]),
        Process(argv=[b""]),
        Process(argv=[b"a\0b"]),
        Process(argv=[b"a"] * 4097),
        Process(argv=[b"a"], env=[b"K=V"] * 4097),
        Process(argv=[b"a"], groups=[1] * 1025),
        Process(argv=[b"a" * 1_048_576]),
    ],
)
def test_requests_beyond_the_limits(process: Process) -> None:
    with pytest.raises(ValueError, match=r"argument|environment|NUL|groups"):
        requests.spawn(1, process)


def test_spawn_in_parts() -> None:
    data = requests.spawn(7, Process(argv=[b"a" * 150_000]))
    flags, sizes, position = [], [], 0
    while position < len(data):
        kind, flag, zero, process, length = struct.unpack_from("<BBHII", data, position)
        assert (kind, zero, process) == (0x11, 0, 7)
        flags.append(flag)
        sizes.append(length)
        position += 12 + length
    assert flags == [1, 1, 0]
    assert sizes[:2] == [65536, 65536]
    whole = requests.spawn(1, Process(argv=[b"a" * (65536 - 12 - 27)]))
    assert struct.unpack_from("<BBHII", whole)[1] == 0


CONTAINER = Container(root_kind=protocol.RootKind.TAR, root_length=512)


def ready(container: Container = CONTAINER, *, verity: int = 0) -> Link:
    link = Link(container)
    list(link.feed(hello() + frame(0x31, 0, bytes([verity, 0, 0, 0]))))
    link.outgoing.clear()
    return link


def running() -> tuple[Link, link_module.Process]:
    link = ready()
    process = link.spawn(Process(argv=[b"x"]))
    list(link.feed(frame(0x32, 1, bytes(4))))
    link.outgoing.clear()
    return link, process


def test_a_guest_is_created_before_anything_is_started_in_it() -> None:
    link = Link(CONTAINER)
    with pytest.raises(ValueError, match="no container"):
        link.spawn(Process(argv=[b"x"]))
    list(link.feed(hello()))
    assert bytes(link.outgoing[:1]) == b"\x01"
    assert b"\x11\0\0\0" not in bytes(link.outgoing)
    link.outgoing.clear()
    list(link.feed(frame(0x31, 0, bytes(4))))
    assert link.stage is Stage.READY
    assert not link.outgoing  # created, and nothing has been asked to run
    link.spawn(Process(argv=[b"x"]))
    assert bytes(link.outgoing) == requests.spawn(1, Process(argv=[b"x"]))


@pytest.mark.parametrize("verity", [0, 1])
def test_nothing_after_a_ready_without_verity_is_given_on(verity: int) -> None:
    """HELLO, READY, STARTED, output, EXITED in one burst."""
    link = Link(Container(root_kind=protocol.RootKind.EROFS, root_length=512, verity=True))
    burst = hello() + frame(0x31, 0, bytes([verity, 0, 0, 0])) + frame(0x32, 1, bytes(4)) + frame(0x33, 1, b"x")
    seen: list[type] = []
    with pytest.raises(ProtocolError) as refusal:
        seen.extend(type(message) for message in link.feed(burst))  # what came before the refusal is kept
    assert isinstance(refusal.value, NoVerityError) is (verity == 0)
    assert Output not in seen
    # A guest that says it, and waits until it is asked, is heard.
    link = ready(Container(root_kind=protocol.RootKind.EROFS, root_length=512, verity=True), verity=1)
    link.spawn(Process(argv=[b"x"]))
    heard = [type(message) for message in link.feed(frame(0x32, 1, bytes(4)) + frame(0x33, 1, b"x"))]
    assert heard == [Started, Output]


def test_processes_have_windows_streams_and_ends_of_their_own() -> None:
    link = ready()
    first, second = link.spawn(Process(argv=[b"a"])), link.spawn(Process(argv=[b"b"], stdin_at_end=True))
    assert (first.number, second.number) == (1, 2)
    assert bytes(link.outgoing).endswith(requests.spawn(2, Process(argv=[b"b"], stdin_at_end=True)))
    list(link.feed(frame(0x32, 2, bytes(4)) + frame(0x32, 1, bytes(4))))
    list(link.feed(frame(0x33, 1, bytes(65536)) * 4))
    assert first.output_credit[Stream.STDOUT] == 0
    assert second.output_credit[Stream.STDOUT] == first.output_credit[Stream.STDERR] == 262_144
    assert list(link.feed(frame(0x33, 2, b"x")))
    link.outgoing.clear()
    link.send_stdin(first, b"abc")
    assert bytes(link.outgoing) == frame(0x12, 1, b"abc")
    with pytest.raises(ValueError, match="window"):
        link.send_stdin(second, b"abc")
    list(link.feed(frame(0x35, 2, struct.pack("<BBHI", 0, 0, 0, 3))))
    assert isinstance(second.ending, Exited)
    assert (second.ending.code, first.life) == (3, Life.RUNNING)
    link.outgoing.clear()
    link.send_signal(second, 15)
    assert not link.outgoing
    link.send_signal(first, 15)
    assert bytes(link.outgoing) == frame(0x14, 1, struct.pack("<I", 15))
    third = link.spawn(Process(argv=[b"c"]))
    assert third.number == 3
    list(link.feed(frame(0x3F, 3, struct.pack("<HI", 5, 4) + b"nope")))
    assert third.ending == Failure(process=3, code=5, message="nope")
    assert list(link.feed(frame(0x33, 1, b"")))  # the others go on
    for late in (frame(0x33, 2, b"x"), frame(0x33, 3, b"x"), frame(0x32, 2, bytes(4)), frame(0x33, 4, b"x")):
        with pytest.raises(ProtocolError):
            list(link.feed(late))


def test_stdin_keeps_to_the_window() -> None:
    link, process = running()
    link.send_stdin(process, bytes(262_144))
    assert process.stdin_credit == 0
    with pytest.raises(ValueError, match="window"):
        link.send_stdin(process, b"x")
    list(link.feed(frame(0x20, 1, struct.pack("<B3xI", 0, 1))))
    link.send_stdin(process, b"x")
    link.end_stdin(process)
    before = bytes(link.outgoing)
    link.end_stdin(process)
    assert bytes(link.outgoing) == before
    assert before.endswith(frame(0x13, 1))


def test_closed_stdin_of_the_workload() -> None:
    link, process = running()
    list(link.feed(frame(0x20, 1, struct.pack("<B3xI", 0, 0))))
    assert not process.stdin_open
    link.end_stdin(process)
    assert not link.outgoing


def test_output_window_is_given_back() -> None:
    link, process = running()
    list(link.feed(frame(0x33, 1, bytes(65536)) * 4))
    with pytest.raises(ProtocolError, match="beyond its window"):
        list(link.feed(frame(0x33, 1, b"x")))
    link, process = running()
    list(link.feed(frame(0x33, 1, bytes(65536)) * 4))
    link.grant(process, Stream.STDOUT, 1)
    assert bytes(link.outgoing) == frame(0x20, 1, struct.pack("<B3xI", 1, 1))
    assert list(link.feed(frame(0x33, 1, b"x")))


def test_a_signal_before_the_start_goes_out_behind_spawn() -> None:
    link = ready()
    process = link.spawn(Process(argv=[b"x"]))
    link.send_signal(process, 10)
    assert bytes(link.outgoing).endswith(frame(0x14, 1, struct.pack("<I", 10)))
