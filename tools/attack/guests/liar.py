# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest that lies to its host: in QEMU's place, a program that says what it likes on the agent's port.

Written from docs/protocol.md alone.
"""

import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.attack.base.target import Target
from tools.attack.guests.agent import EXITED, HELLO, READY, STARTED, STDOUT, WINDOW_BYTES
from tools.pipeline.base import children

WAIT = None
"""Among what is said: wait until the host has asked for a process."""

_LIMIT = 120.0  # seconds for a launcher to come to its end
_GRACE = 5.0
# The launcher asks for version and devices first. What it then says is written into the script.
_SCRIPT = """\
#!{python} -IS
import socket, struct, sys, time
words = sys.argv[1:]
if "-version" in words:
    print("QEMU emulator version 10.0.13 (a liar)")
    sys.exit(0)
if "loader,help" in words:
    sys.exit(0)
path = next(word for word in words if word.startswith("socket,id=agent,path=")).split("path=")[1]
link = socket.socket(socket.AF_UNIX)
link.connect(path)
heard = b""

def asked():
    global heard
    while len(heard) >= 12:
        kind, _, _, _, length = struct.unpack_from("<BBHII", heard)
        if len(heard) < 12 + length:
            return False
        if kind in (0x11, 0x1A):
            return True
        heard = heard[12 + length:]
    return False

try:
    for part in {parts!r}:
        if part is None:
            while not asked():
                heard += link.recv(65536) or sys.exit(0)
        else:
            link.sendall(part)
    endless = {endless!r}
    while endless:
        link.sendall(endless)
    while link.recv(65536):
        pass
except OSError:
    pass
"""


def frame(kind: int, process: int = 0, payload: bytes = b"") -> bytes:
    """A frame."""
    return struct.pack("<BBHII", kind, 0, 0, process, len(payload)) + payload


def hello(**changes: int) -> bytes:
    """The agent's HELLO."""
    fields = {"low": 2, "high": 2, "caps": 1, "window": WINDOW_BYTES, "profile": 0, "bound": 0} | changes
    return frame(HELLO, 0, b"SEVA" + struct.pack("<HHIIBB", *fields.values()))


def ready(*, verity: bool = False) -> bytes:
    """READY."""
    return frame(READY, 0, bytes([verity, 0, 0, 0]))


def started(process: int = 1) -> bytes:
    """STARTED."""
    return frame(STARTED, process, struct.pack("<I", 1))


def said(text: bytes) -> bytes:
    """Output of process 1."""
    return frame(STDOUT, 1, text)


def exited(code: int = 0, *, kind: int = 0) -> bytes:
    """The end of process 1."""
    return frame(EXITED, 1, struct.pack("<BBHI", kind, 0, 0, code))


@dataclass(frozen=True, kw_only=True)
class Host:
    """A launcher, and the guest that it gets in place of the one that it asks for."""

    target: Target
    folder: Path
    rootfs: Path
    options: tuple[str, ...] = ("--unbound",)

    @contextmanager
    def running(self, parts: Sequence[bytes | None], *, endless: bytes = b"") -> Iterator["subprocess.Popen[bytes]"]:
        """Start it with a guest that says `parts`, and then `endless` without end."""
        qemu = self.folder / "qemu"
        # A list in the script, whatever sequence it was.
        qemu.write_text(_SCRIPT.format(python=sys.executable, parts=list(parts), endless=endless))
        qemu.chmod(0o755)
        argv = [
            str(self.target.launcher), "run", "--unprotected", "--accel", "tcg", "--qemu", str(qemu),
            "--rootfs", str(self.rootfs), *self.options, "--", "true",
        ]  # fmt: skip
        pipe = subprocess.PIPE
        with children.running(argv, grace=_GRACE, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
            yield process

    def run(self, parts: Sequence[bytes | None]) -> subprocess.CompletedProcess[bytes]:
        """The same, to its end."""
        with self.running(parts) as process:
            out, err = process.communicate(timeout=_LIMIT)
        return subprocess.CompletedProcess([], process.returncode, out, err)
