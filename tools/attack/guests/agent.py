# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A host that may misbehave: boots the agent without firmware and speaks docs/protocol.md byte by byte.

Independent of tools/launcher on purpose: the agent is tested against the specification, by a host that can
break it.
"""

import io
import os
import socket
import struct
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.pipeline.base import children
from tools.pipeline.base.errors import BuildError

HELLO, CONTAINER, SPAWN, STDIN, STDIN_EOF, SIGNAL, SHUTDOWN = 0x01, 0x10, 0x11, 0x12, 0x13, 0x14, 0x16
WORKLOAD, FILE, PREPARE, RUN, ATTEST, REFUSED, REPORT = 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x36, 0x37
RESIZE = 0x15
WINDOW, READY, STARTED, STDOUT, STDERR, EXITED, ERROR = 0x20, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3F

WINDOW_BYTES = 262_144
_START, _PERIOD = 120.0, 0.2  # seconds for QEMU to start, and between two looks at it
APPLETS = (
    "sh", "cat", "chmod", "chroot", "dd", "df", "dmesg", "grep", "id", "ls", "mkdir", "mknod", "mount", "readlink",
    "seq", "sleep", "sort", "stty", "touch", "true", "tty", "umount", "unshare", "yes",
)  # fmt: skip
FILES = {
    "data/secret": b"hush\n",
    "data/folder/inside": b"seen\n",
    "data/fixed/inside": b"fixed\n",
    "data/free/inside": b"free\n",
    "data/self": b"#!/proc/self/exe\n",
    "data/script": b"#!/bin/sh\necho ran\n",
}
"""In the root, beside busybox; programs all of them."""


def root_tar(busybox: Path, target: Path, **programs: bytes) -> Path:
    """A root with busybox, a few files and further static programs in it."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        more = {f"bin/{name}": data for name, data in programs.items()}
        for name, data in {"bin/busybox": busybox.read_bytes(), **FILES, **more}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return target


def counted(data: bytes) -> bytes:
    """A field of the type `bytes`."""
    return struct.pack("<I", len(data)) + data


def hello(*, version: int = 2, magic: bytes = b"SEVA", window: int = WINDOW_BYTES) -> bytes:
    """The host's HELLO."""
    return magic + struct.pack("<HHI", version, 0, window)


def container(*, kind: int = 1, length: int = 0, limit: int = 0, name: bytes = b"guest") -> bytes:
    """CONTAINER, for unbound guests."""
    return struct.pack("<BQQ", kind, length, limit) + counted(name)


def run_entry(*environment: bytes, entry: int = 0, flags: int = 2, size: tuple[int, int] = (0, 0)) -> bytes:
    """RUN, for bound guests."""
    payload = struct.pack("<B3xII", flags, entry, len(environment)) + b"".join(map(counted, environment))
    return payload + struct.pack("<HH", *size)


def spawn(*argv: bytes, uid: int = 0, flags: int = 0, size: tuple[int, int] = (0, 0)) -> bytes:
    """SPAWN, for unbound guests."""
    environment = counted(b"PATH=/bin")
    payload = struct.pack("<BIIH", flags, uid, uid, 0) + counted(b"/")
    payload += struct.pack("<I", len(argv)) + b"".join(map(counted, argv))
    return payload + struct.pack("<I", 1) + environment + struct.pack("<HH", *size)


@dataclass(kw_only=True)
class Result:
    """What one process did."""

    out: bytes = b""
    err: bytes = b""
    exited: tuple[int, ...] | None = None
    error: tuple[int, str] | None = None
    windows: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    ready: bool = False

    def take(self, kind: int, process: int, payload: bytes) -> None:
        """What a frame says of it; process 0 is the connection."""
        if kind == STDOUT:
            self.out += payload
        elif kind == STDERR:
            self.err += payload
        elif kind == WINDOW:
            self.windows.append(struct.unpack("<II", payload)[1])
        elif kind == REFUSED:
            assert payload[1:4] == bytes(3)
            self.refused.append(payload[0])
        elif kind == EXITED:
            self.exited = struct.unpack("<BBHI", payload)
        elif kind == ERROR:
            self.error = failure(payload)
        elif kind == READY:
            self.ready = True
        elif kind != STARTED:
            raise BuildError(f"the agent said 0x{kind:02x} of process {process}")

    @property
    def over(self) -> bool:
        """It has ended, or was refused."""
        return self.exited is not None or self.error is not None


class Guest:
    """One booted guest; leaving the block ends it. `options` are added to QEMU's command line.

    `drive` says what the disk is, in place of the plain file `disk`.
    BuildError where the guest does not go along far enough for its host to see anything.
    """

    def __init__(
        self,
        *,
        qemu: Path,
        kernel: Path,
        initrd: Path,
        disk: Path,
        folder: Path,
        append: str = "",
        binding: str = "sev_agent.unbound",
        options: Sequence[str] = (),
        drive: str = "",
    ) -> None:
        listener = socket.socket(socket.AF_UNIX)
        # A name relative to QEMU's working directory: the whole path may be longer than a socket allows.
        with listener:
            short = Path(f"/proc/self/fd/{_folder_fd(folder)}/agent.sock")
            short.unlink(missing_ok=True)  # of a guest before this one
            listener.bind(str(short))
            listener.listen(1)
            protected = "iommu_platform=on,disable-legacy=on"
            # fmt: off
            argv = [
                str(qemu), "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "512M", "-nodefaults",
                "-no-reboot", "-display", "none", "-serial", f"file:{folder / 'console'}",
                "-kernel", str(kernel), "-initrd", str(initrd),
                "-append", f"panic=-1 quiet console=ttyS0 sev_agent.log=1 {binding} {append}",
                "-chardev", "socket,id=agent,path=agent.sock",
                "-device", f"virtio-serial-pci,{protected}",
                "-device", "virtserialport,chardev=agent,name=org.sev-artifacts.agent.0",
                "-drive", f"if=none,id=root,readonly=on,{drive or f'format=raw,file={disk}'}",
                "-device", f"virtio-blk-pci,drive=root,serial=rootfs,{protected}",
                *options,
            ]
            # fmt: on
            self.console = folder / "console"
            self._stack = ExitStack()
            log = self._stack.enter_context((folder / "qemu.log").open("wb"))
            running = children.running(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.process = self._stack.enter_context(running)
            try:
                self.link = self._accept(listener, folder / "qemu.log")
            except BaseException:
                self._end()
                raise
        self.link.settimeout(900)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.link.close()
        self._end()

    def _end(self) -> None:
        self.process.kill()
        self._stack.close()

    def _accept(self, listener: socket.socket, log: Path) -> socket.socket:
        listener.settimeout(_PERIOD)
        for _ in range(int(_START / _PERIOD)):
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        said = log.read_text(errors="replace").strip()
        raise BuildError(f"QEMU does not start: {said[-200:] or 'without a word'}")

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.link.sendall(data)

    def send(self, kind: int, process: int = 0, payload: bytes = b"") -> None:
        """Send a frame."""
        self.raw(struct.pack("<BBHII", kind, 0, 0, process, len(payload)) + payload)

    def receive(self) -> tuple[int, int, bytes] | None:
        """The next frame; None when the guest is gone."""
        while len(self._buffer) < 12 or len(self._buffer) < 12 + self._length():
            try:
                data = self.link.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._buffer += data
        kind, flags, reserved, process, length = struct.unpack_from("<BBHII", self._buffer)
        assert (flags, reserved) == (0, 0)
        payload, self._buffer = self._buffer[12 : 12 + length], self._buffer[12 + length :]
        return kind, process, payload

    def _length(self) -> int:
        (length,) = struct.unpack_from("<I", self._buffer, 8)
        assert isinstance(length, int)
        return length

    def expect(self, kind: int) -> bytes:
        """The next frame's payload; BuildError when it is of another kind."""
        frame = self.receive()
        if frame is None:
            raise BuildError("the guest is gone")
        if frame[0] != kind:
            raise BuildError(f"the agent said {frame!r:.120}")
        return frame[2]

    def bound(self, document: bytes, *before: tuple[int, bytes]) -> Self:
        """Handshake, document and what comes before the container; the container."""
        assert self.expect(HELLO)[-1:] == b"\1"
        self.send(HELLO, payload=hello())
        self.send(WORKLOAD, payload=document)
        for kind, payload in before:
            self.send(kind, payload=payload)
        self.send(PREPARE, payload=counted(b""))
        return self

    def ready(self) -> Self:
        """Handshake and container."""
        self.expect(HELLO)
        self.send(HELLO, payload=hello())
        self.send(CONTAINER, payload=container())
        self.expect(READY)
        return self

    def run(self, process: int, *argv: bytes, uid: int = 0) -> Result:
        """A process of an unbound guest, to its end."""
        self.send(SPAWN, process, spawn(*argv, uid=uid, flags=2))
        return self.collect([process])[process]

    def collect(self, processes: Iterable[int]) -> dict[int, Result]:
        """Until each process has ended or was refused."""
        return self.collect_all(processes)

    def collect_all(
        self, processes: Iterable[int], *, results: dict[int, Result] | None = None, until: bytes | None = None
    ) -> dict[int, Result]:
        """The same, going on where `results` ended; or until one of them has written `until`."""
        if results is None:
            results = {process: Result() for process in processes}
        while not all(one.over for one in results.values()):
            if until is not None and any(one.out.endswith(until) for one in results.values()):
                break
            frame = self.receive()
            if frame is None:
                raise BuildError("the guest is gone")
            results[frame[1]].take(*frame)
        return results

    def hear(self, done: Callable[[Mapping[int, Result]], bool]) -> Mapping[int, Result]:
        """All that the guest says, by process (0: the connection), until `done` holds or the guest is gone."""
        results: defaultdict[int, Result] = defaultdict(Result)
        while not done(results) and (frame := self.receive()) is not None:
            results[frame[1]].take(*frame)
        return results

    def finish(self, process: int, results: dict[int, Result]) -> Result:
        """Until this process, one of several that live, has ended or was refused."""
        one = results.setdefault(process, Result())
        while not one.over:
            frame = self.receive()
            if frame is None:
                raise BuildError("the guest is gone")
            results[frame[1]].take(*frame)
        return one

    def last_words(self) -> tuple[int, str] | None:
        """ERROR for the connection, if one came, once the guest is off."""
        last = None
        while (frame := self.receive()) is not None:
            if frame[:2] == (ERROR, 0):
                last = failure(frame[2])
        assert self.process.wait(300) == 0
        return last

    def log(self) -> str:
        """The console's text; the production kernel has none."""
        return self.console.read_text(errors="replace")


def failure(payload: bytes) -> tuple[int, str]:
    """Code and text of an ERROR."""
    code, length = struct.unpack_from("<HI", payload)
    assert len(payload) == 6 + length <= 6 + 1024
    return code, payload[6:].decode()


def _folder_fd(folder: Path) -> int:
    """A descriptor that stays open for the life of the test process: sockets are bound through it."""
    return os.open(folder, os.O_PATH | os.O_DIRECTORY)
