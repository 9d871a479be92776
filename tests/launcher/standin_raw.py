# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a hostile guest might send, byte for byte."""

import os
import socket
import struct
import sys

from tests.launcher.standin_frames import WINDOW, attested, exited, frame, hello

SPAWNED = b"<here the guest waits for SPAWN>"


def raw(connection: socket.socket, name: str) -> None:
    """Send what a hostile guest might, then see how long the host listens."""
    start = frame(0x32, 1, struct.pack("<I", 1))
    ready = frame(0x31, 0, bytes(4))
    up = hello() + ready + SPAWNED + start
    sent = {
        "garbage": os.urandom(4096).replace(b"\x01", b"\x02"),
        "zeros": bytes(100_000),
        "flags": struct.pack("<BBHII", 0x01, 1, 0, 0, 17),
        "reserved": struct.pack("<BBHII", 0x01, 0, 7, 0, 17),
        "huge": struct.pack("<BBHII", 0x33, 0, 0, 1, 0xFFFFFFFF),
        "magic": frame(1, 0, b"EVIL" + bytes(13)),
        "version": hello(low=3, high=9),
        "old-version": frame(1, 0, b"SEVA" + struct.pack("<HHIIB", 1, 1, 1, WINDOW, 0)),
        "bound": hello(bound=1),
        "refused": up + frame(0x36, 1, struct.pack("<B3xI", 0x14, 4) + b"nope"),
        "refused-length": up + frame(0x36, 1, struct.pack("<B3xI", 0x14, 9) + b"nope"),
        "window": hello(window=0xFFFFFFFF),
        "short-hello": frame(1, 0, b"SEVA"),
        "debug": hello(profile=1),
        "two-hellos": hello() + hello(),
        "ready-first": ready,
        "ready-twice": hello() + ready + ready,
        "start-first": hello() + start,
        "burst": hello() + ready + start + frame(0x33, 1, b"relayed") + frame(0x35, 1, bytes(8)),
        "other-process": hello() + ready + frame(0x32, 2, struct.pack("<I", 1)),
        "output-first": hello() + ready + SPAWNED + frame(0x33, 1, b"early"),
        "flood": up + frame(0x33, 1, bytes(65536)) * 8,
        "empties": up + frame(0x33, 1) * 1025,
        "few-empties": up + frame(0x33, 1) * 1024 + frame(0x34, 1, b"x") + frame(0x34, 1) * 1024 + exited(5),
        "closed-window": up + frame(0x20, 1, bytes(8)) * 2,
        "closed-stdin": up + frame(0x20, 1, bytes(8)) + exited(6),
        "stdin-window": up + frame(0x20, 1, struct.pack("<B3xI", 0, 0x7FFFFFFF)),
        "wrong-window": up + frame(0x20, 1, struct.pack("<B3xI", 1, 5)),
        "exit-code": up + frame(0x35, 1, struct.pack("<BBHI", 0, 0, 0, 256)),
        "exit-signal": up + frame(0x35, 1, struct.pack("<BBHI", 1, 0, 0, 65)),
        "exit-kind": up + frame(0x35, 1, struct.pack("<BBHI", 2, 0, 0, 0)),
        "exit-first": hello() + ready + SPAWNED + frame(0x35, 1, bytes(8)),
        "error-length": hello() + frame(0x3F, 0, struct.pack("<HI", 4, 5000) + b"x"),
        "report": up + frame(0x37, 0, attested(b"x", "")),
        "error-code": hello() + frame(0x3F, 0, struct.pack("<HI", 99, 0)),
        "host-message": hello() + ready + frame(0x11, 1, b""),
        "gone-early": b"",
        "gone-half": hello() + ready[:7],
        "gone-running": up,
        "rootfs": hello() + frame(0x3F, 0, struct.pack("<HI", 4, 16) + b"\x1b]0;bad\x07 archive"),
        "not-found": hello() + ready + SPAWNED + frame(0x3F, 1, struct.pack("<HI", 5, 4) + b"nope"),
        "not-executable": hello() + ready + SPAWNED + frame(0x3F, 1, struct.pack("<HI", 6, 4) + b"nope"),
        "bad-cwd": hello() + ready + SPAWNED + frame(0x3F, 1, struct.pack("<HI", 7, 4) + b"nope"),
        "after-end": up + frame(0x35, 1, struct.pack("<BBHI", 0, 0, 0, 5)) + b"\xff" * 100,
        "killed": up + frame(0x35, 1, struct.pack("<BBHI", 1, 1, 0, 9)),
    }[name]
    heard = b""
    for number, part in enumerate(sent.split(SPAWNED)):
        while number and not spawned(heard):
            heard += connection.recv(65536) or sys.exit("the host left")
        connection.sendall(part)
    if name.startswith("gone"):
        return
    connection.settimeout(30)
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass


def spawned(heard: bytes) -> bool:
    """Whether a whole SPAWN is among the host's frames."""
    while len(heard) >= 12:
        kind, _, _, _, length = struct.unpack_from("<BBHII", heard)
        if len(heard) < 12 + length:
            return False
        if kind == 0x11:
            return True
        heard = heard[12 + length :]
    return False
