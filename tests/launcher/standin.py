# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Stands in for QEMU and the agent: answers QEMU's questions, then speaks the agent's side of the protocol.

Written from docs/protocol.md alone and shares no code with the launcher. Runs the workload as an ordinary
process of this machine. STANDIN chooses the behaviour, STANDIN_LOG a file that gets every argv: from the environment
of the launcher, which does not hand its own on.
"""

import hashlib
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import IO, Any

WINDOW = 256 * 1024


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


def frame(kind: int, process: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("<BBHII", kind, 0, 0, process, len(payload)) + payload


def hello(**changes: int) -> bytes:
    fields = {"low": 2, "high": 2, "caps": 1, "window": WINDOW, "profile": 0, "bound": 0} | changes
    return frame(0x01, 0, b"SEVA" + struct.pack("<HHIIBB", *fields.values()))


def exited(code: int) -> bytes:
    return frame(0x35, 1, struct.pack("<BBHI", 0, 0, 0, code))


def attested(nonce: bytes, behaviour: str) -> bytes:
    failed = behaviour == "no-report"
    texts = [b"no processor", b"", b""] if failed else [b"sev_guest", b"report over " + nonce, b"certificates"]
    return bytes([failed, 0, 0, 0]) + b"".join(struct.pack("<I", len(text)) + text for text in texts)


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
                argv, cwd=cwd, env=variables, start_new_session=True, stdin=pipe, stdout=pipe, stderr=pipe
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


if __name__ == "__main__":
    main()
