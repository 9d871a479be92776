# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""ATTEST and REPORT, byte by byte, and the state around them."""

import random
import struct

import pytest

from tests.launcher.standin_frames import frame, hello
from tools.launcher.channel.attest import AUXBLOB_MAX, REPORT_MAX, Report, decode_report
from tools.launcher.channel.link import Bound, Link
from tools.launcher.channel.payload import ProtocolError


def payload(*pieces: bytes, failed: int = 0, zeros: bytes = bytes(3)) -> bytes:
    return bytes([failed]) + zeros + b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces)


def ready() -> Link:
    link = Link(Bound(document=b"{}"))
    list(link.feed(hello(bound=1) + frame(0x31, 0, bytes(4))))
    link.outgoing.clear()
    return link


def test_known_bytes() -> None:
    link = ready()
    link.attest(b"\x01\x02")
    assert link.outgoing.hex() == "1b00000000000000020000000102"
    found = decode_report(0, bytes.fromhex("00000000 01000000 70 02000000 7265 00000000"))
    assert found == Report(provider="p", report=b"re", auxblob=b"")
    assert decode_report(0, payload(b"why", b"", b"", failed=1)) == Report(failure="why")
    longest = decode_report(0, payload(b"", bytes(REPORT_MAX), bytes(AUXBLOB_MAX)))
    assert (len(longest.report), len(longest.auxblob)) == (REPORT_MAX, AUXBLOB_MAX)


@pytest.mark.parametrize(
    ("process", "data"),
    [
        (1, payload(b"p", b"r", b"")),
        (0, b""),
        (0, bytes(3)),
        (0, payload(b"p", b"r")),
        (0, payload(b"p", b"r", b"", b"")),
        (0, payload(b"p", b"r", b"")[:-1]),
        (0, payload(b"p", b"", b"")),
        (0, payload(b"p", b"r", b"", failed=1)),
        (0, payload(b"p", b"", b"a", failed=1)),
        (0, payload(b"p", b"r", b"", failed=2)),
        (0, payload(b"p", b"r", b"", zeros=b"\0\1\0")),
        (0, payload(bytes(1025), b"r", b"")),
        (0, payload(b"p", bytes(REPORT_MAX + 1), b"")),
        (0, payload(b"p", b"r", bytes(AUXBLOB_MAX + 1))),
        (0, bytes(4) + b"\xff\xff\xff\xff" * 3),
    ],
)
def test_what_is_no_report(process: int, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_report(process, data)


def test_no_bytes_raise_anything_else() -> None:
    generator = random.Random(3)
    good = payload(b"sev_guest", bytes(40), b"aux")
    accepted = refused = 0
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(generator.randrange(3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        del data[generator.choice([len(data), generator.randrange(len(data))]) :]
        try:
            found = decode_report(0, bytes(data))
        except ProtocolError:
            refused += 1
        else:
            assert found.failure is not None or found.report
            accepted += 1
    assert accepted > 1000
    assert refused > 1000


def test_one_question_and_one_answer() -> None:
    link = ready()
    answer = frame(0x37, 0, payload(b"p", b"r", b""))
    with pytest.raises(ProtocolError, match="nobody asked"):
        list(link.feed(answer))
    link = ready()
    link.attest(b"x")
    with pytest.raises(ValueError, match="being made"):
        link.attest(b"y")
    list(link.feed(answer))
    assert (link.attesting, link.report) == (False, Report(provider="p", report=b"r"))
    link.attest(b"y")
    assert link.report is None
    list(link.feed(answer))
    with pytest.raises(ProtocolError, match="nobody asked"):
        list(link.feed(answer))
    with pytest.raises(ValueError, match="not ready"):
        Link(Bound(document=b"{}")).attest(b"x")
