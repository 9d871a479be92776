# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Stands in for QEMU and the agent: answers QEMU's questions, then speaks the agent's side of the protocol.

Written from docs/protocol.md alone and shares no code with the launcher. Runs the workload as an ordinary
process of this machine. STANDIN chooses the behaviour, STANDIN_LOG a file that gets every argv: from the environment
of the launcher, which does not hand its own on.
"""

import ctypes
import hashlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import IO, Any

from tests.launcher.standin_frames import WINDOW, attested, frame, hello
from tests.launcher.standin_raw import raw


def take_settings() -> None:
    """From whoever started this; one within a test has them in what it gives to QEMU."""
    try:
        entries = pathlib.Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:  # it is gone
        return
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name.startswith(b"STANDIN"):
            os.environb.setdefault(name, value)


def main() -> None:
    words = sys.argv[1:]
    take_settings()
    if "-version" in words:
        print(f"QEMU emulator version {os.environ.get('STANDIN_VERSION', '10.0.13')} (stand-in)")
        return
    if "loader,help" in words:
        sys.exit(int(os.environ.get("STANDIN_NO_SANDBOX", "0")))
    if "STANDIN_LOG" in os.environ:
        files = {p.name: p.stat().st_mode & 0o777 for p in pathlib.Path.cwd().iterdir()}
        entry = {"argv": words, "pid": os.getpid(), "cwd": str(pathlib.Path.cwd()), "files": files}
        with pathlib.Path(os.environ["STANDIN_LOG"]).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
    behaviour = os.environ.get("STANDIN", "agent")
    accel = words[words.index("-accel") + 1]
    if behaviour == "kvm-hangs":
        behaviour = "silent" if accel == "kvm" else "agent"
    if behaviour == "kvm-fails":
        behaviour = "dies" if accel == "kvm" else "agent"
    if "-fw_cfg" in words:
        # As QEMU 7.2 says of a name of our own; the stand-in's other words are its error.
        print('qemu: warning: externally provided fw_cfg item names should be prefixed with "opt/"', file=sys.stderr)
    if behaviour == "dies":
        sys.exit("qemu-system-x86_64: \x1b[31mthe stand-in refuses\x1b[0m")
    path = next(w for w in words if w.startswith("socket,id=agent,path=")).split("path=")[1]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    if behaviour == "silent":
        time.sleep(3600)
    elif behaviour.startswith("raw:"):
        raw(connection, behaviour[4:])
    else:
        Agent(connection, workload_digest(words)).serve(behaviour)


def workload_digest(words: list[str]) -> str | None:
    """What the command line of the guest binds it to; None: it is unbound."""
    line = words[words.index("-append") + 1].split() if "-append" in words else []
    bound = [word.partition("=")[2] for word in line if word.startswith("sev_agent.workload=")]
    assert len(bound) + line.count("sev_agent.unbound") == 1, line
    return bound[0] if bound else None


class Agent:
    def __init__(self, connection: socket.socket, digest: str | None) -> None:
        self.connection = connection
        self.digest = digest
        self.document: dict[str, Any] | None = None
        self.parts = b""
        self.lock = threading.Lock()
        self.credit = threading.Condition()
        self.windows = {1: 0, 2: 0}
        self.initial = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.stdin: list[bytes | None] = []
        self.stdin_ready = threading.Condition()
        self.spawn = b""
        self.outstanding = WINDOW

    def send(self, data: bytes) -> None:
        with self.lock:
            self.connection.sendall(data)

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                os._exit(0)
            data += piece
        return data

    def serve(self, behaviour: str) -> None:  # noqa: C901, PLR0912  a branch for each message
        self.send(hello(bound=int(self.digest is not None)))
        while True:
            kind, flags, zero, process, length = struct.unpack("<BBHII", self.receive(12))
            payload = self.receive(length)
            assert zero == 0
            assert flags == 0 or kind in (0x11, 0x17, 0x18, 0x1A)
            if kind in (0x17, 0x18, 0x1A):
                self.parts += payload
                if flags:
                    continue
                payload, self.parts = self.parts, b""
            if kind in (0x17, 0x18, 0x19, 0x1A):
                self.of_a_document(kind, process, payload, behaviour)
            elif kind == 0x01:
                magic, version, reserved, self.initial = struct.unpack("<4sHHI", payload)
                assert (magic, version, reserved, process) == (b"SEVA", 2, 0, 0)
            elif kind == 0x10:
                assert self.digest is None
                self.container(payload, behaviour)
            elif kind == 0x11:
                self.spawn += payload
                if not flags:
                    self.start(process, behaviour)
            elif kind == 0x12:
                assert 0 < length <= self.outstanding, "stdin beyond the window"
                self.outstanding -= length
                self.push(payload)
            elif kind == 0x13:
                self.push(None)
            elif kind == 0x15:
                self.resized(payload)
            elif kind == 0x14 and self.process is not None:
                self.process.send_signal(struct.unpack("<I", payload)[0])
            elif kind == 0x16:
                if self.process is not None:
                    self.process.kill()
                os._exit(0)
            elif kind == 0x1B and behaviour != "never-attests":
                self.send(frame(0x37, 0, attested(payload, behaviour)))
            elif kind == 0x20:
                stream, more = struct.unpack("<B3xI", payload)
                with self.credit:
                    self.windows[stream] += more
                    self.credit.notify_all()

    def resized(self, payload: bytes) -> None:
        rows, columns = struct.unpack("<HH", payload)
        if "STANDIN_LOG" in os.environ:
            with pathlib.Path(os.environ["STANDIN_LOG"] + ".sizes").open("a", encoding="utf-8") as log:
                log.write(f"{rows} {columns}\n")

    def of_a_document(self, kind: int, process: int, payload: bytes, behaviour: str) -> None:
        if kind == 0x17:
            assert self.document is None
            assert hashlib.sha256(payload).hexdigest() == self.digest
            self.document = json.loads(payload)
        elif kind == 0x18:
            entry = {"number": struct.unpack_from("<I", payload)[0], "content": payload[8:].decode()}
            pathlib.Path(os.environ["STANDIN_LOG"] + ".file").write_text(json.dumps(entry), "utf-8")
        elif kind == 0x19:
            self.prepare(payload, behaviour)
        else:
            self.run(process, payload, behaviour)

    def container(self, payload: bytes, behaviour: str) -> None:
        kind, length, limit, size = struct.unpack_from("<BQQI", payload)
        host = payload[21:]
        assert size == len(host)
        image = pathlib.Path("rootfs.img")
        assert length == image.stat().st_size
        if "STANDIN_LOG" in os.environ:
            entry = {"kind": kind, "length": length, "limit": limit, "host": host.decode()}
            pathlib.Path(os.environ["STANDIN_LOG"] + ".container").write_text(json.dumps(entry), "utf-8")
        if behaviour != "never-ready":
            self.send(frame(0x31, 0, bytes([behaviour == "verity", 0, 0, 0])))

    def prepare(self, payload: bytes, behaviour: str) -> None:
        assert self.document is not None
        (size,) = struct.unpack_from("<I", payload)
        assert size == len(payload) - 4
        if "STANDIN_LOG" in os.environ:
            entry = {"document": self.document, "host": payload[4:].decode()}
            pathlib.Path(os.environ["STANDIN_LOG"] + ".container").write_text(json.dumps(entry), "utf-8")
        if behaviour != "never-ready":
            verity = self.document["root"]["form"] == "erofs-verity" and behaviour != "no-verity"
            self.send(frame(0x31, 0, bytes([verity, 0, 0, 0])))

    def run(self, number: int, payload: bytes, behaviour: str) -> None:
        assert self.document is not None
        flags, zero, entry, count = struct.unpack_from("<B3sII", payload)
        assert (flags, zero, entry) == (0, bytes(3), 0)
        offset, more = 12, []
        for _ in range(count):
            (size,) = struct.unpack_from("<I", payload, offset)
            more.append(payload[offset + 4 : offset + 4 + size])
            offset += 4 + size
        self.resized(payload[offset:])
        what = self.document["process"]
        argv = [word.encode() for word in what["argv"]]
        env = [entry.encode() for entry in what["environment"]] + more
        variables = dict(entry.split(b"=", 1) for entry in env)
        ids = (what["uid"], what["gid"])
        self.execute(number, argv=argv, env=variables, cwd=what["cwd"].encode(), ids=ids, behaviour=behaviour)

    def start(self, number: int, behaviour: str) -> None:
        data, offset = self.spawn, 0

        def take(layout: str) -> int:
            nonlocal offset
            (value,) = struct.unpack_from(layout, data, offset)
            offset += struct.calcsize(layout)
            return int(value)

        def blob() -> bytes:
            nonlocal offset
            size = take("<I")
            offset += size
            return data[offset - size : offset]

        flags, uid, gid = take("<B"), take("<I"), take("<I")
        groups = [take("<I") for _ in range(take("<H"))]
        cwd = blob()
        argv = [blob() for _ in range(take("<I"))]
        env = [blob() for _ in range(take("<I"))]
        take("<H"), take("<H")
        assert offset == len(data)
        assert flags == 0
        assert not groups
        variables = dict(entry.split(b"=", 1) for entry in env)
        self.execute(number, argv=argv, env=variables, cwd=cwd, ids=(uid, gid), behaviour=behaviour)

    def execute(
        self,
        number: int,
        *,
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes,
        ids: tuple[int, int],
        behaviour: str,
    ) -> None:
        variables = env | {b"STANDIN_UID": str(ids[0]).encode(), b"STANDIN_GID": str(ids[1]).encode()}
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=variables,
                start_new_session=True,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                preexec_fn=end_with_us,  # noqa: PLW1509  (one call of the C library, loaded before)
            )
        except FileNotFoundError:
            self.send(frame(0x3F, number, struct.pack("<HI", 5, 9) + b"not found"))
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        if self.document is not None and not self.document["process"]["host"]["stdin"]:
            self.push(None)
        self.windows = {1: self.initial, 2: self.initial}
        self.send(frame(0x32, number, struct.pack("<I", process.pid)))
        readers = [
            threading.Thread(target=self.pump, args=(number, 1, process.stdout)),
            threading.Thread(target=self.pump, args=(number, 2, process.stderr)),
        ]
        for reader in readers:
            reader.start()
        deaf = behaviour == "deaf"
        threading.Thread(target=self.feed, args=(number, process.stdin, deaf), daemon=True).start()
        threading.Thread(target=self.finish, args=(number, process, readers), daemon=True).start()

    def push(self, data: bytes | None) -> None:
        with self.stdin_ready:
            self.stdin.append(data)
            self.stdin_ready.notify()

    def feed(self, number: int, stdin: IO[bytes], deaf: bool) -> None:
        while not deaf:
            with self.stdin_ready:
                while not self.stdin:
                    self.stdin_ready.wait()
                data = self.stdin.pop(0)
            try:
                if data is None:
                    stdin.close()
                    return
                stdin.write(data)
                stdin.flush()
            except OSError:
                self.send(frame(0x20, number, struct.pack("<B3xI", 0, 0)))
                return
            self.outstanding += len(data)
            self.send(frame(0x20, number, struct.pack("<B3xI", 0, len(data))))

    def pump(self, number: int, stream: int, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), 50_000):
            while data:
                with self.credit:
                    while not self.windows[stream]:
                        self.credit.wait()
                    part, data = data[: self.windows[stream]], data[self.windows[stream] :]
                    self.windows[stream] -= len(part)
                self.send(frame(0x32 + stream, number, part))

    def finish(self, number: int, process: "subprocess.Popen[bytes]", readers: list[threading.Thread]) -> None:
        status = process.wait()
        for reader in readers:
            reader.join()
        kind, code = (1, -status) if status < 0 else (0, status)
        self.send(frame(0x35, number, struct.pack("<BBHI", kind, 0, 0, code)))


_LIBC = ctypes.CDLL(None)


def end_with_us() -> None:
    """A guest's processes end with QEMU: PR_SET_PDEATHSIG of linux/prctl.h."""
    _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
