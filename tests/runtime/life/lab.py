# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The built sev-runtime as an engine calls it: bundles made by hand, and this process as the subreaper."""

import array
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

LIMIT = 120.0
_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]


def wait(what: Callable[[], object], *, seconds: float = LIMIT) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def configuration(root: Path, argv: list[str], **changes: Any) -> dict[str, Any]:
    """A config.json; `changes` are laid over it, `process` key by key."""
    process = {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": argv,
        "env": ["PATH=/usr/bin:/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "noNewPrivileges": True,
    }
    value: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": process | changes.pop("process", {}),
        "root": {"path": str(root)},
        "hostname": "raw",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }
    return value | changes


@dataclass(kw_only=True)
class Lab:
    """A runtime with folders of its own."""

    program: Path
    folder: Path
    image: Path
    config: Path
    containers: list["Container"] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        return self.folder / "log.json"

    def words(self, *words: str | Path) -> list[str]:
        given = [self.program, "--root", self.root, "--log", self.log, "--log-format=json", "--config", self.config]
        return [str(word) for word in (*given, *words)]

    def call(self, *words: str | Path, **options: Any) -> "subprocess.CompletedProcess[bytes]":
        given = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": LIMIT, "check": False}
        all_options: Any = given | options
        done: Any = subprocess.run(self.words(*words), **all_options)  # noqa: PLW1510  it is among them
        return cast("subprocess.CompletedProcess[bytes]", done)

    def says(self, *words: str | Path, **options: Any) -> bytes:
        """What a command prints that must succeed."""
        done = self.call(*words, **options)
        assert done.returncode == 0, done.stderr.decode()
        return bytes(done.stdout)

    def refuses(self, *words: str | Path, **options: Any) -> str:
        """The last line of the engine's log after a command that must fail."""
        done = self.call(*words, **options)
        assert done.returncode == 1, done
        assert b"Traceback" not in done.stderr
        return str(self.logged()[-1]["msg"])

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def container(self, argv: list[str], *, name: str = "one", **changes: Any) -> "Container":
        bundle = self.folder / f"bundle-{len(self.containers)}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(configuration(self.image, argv, **changes)))
        made = Container(lab=self, name=name, bundle=bundle)
        self.containers.append(made)
        return made

    def script(self, text: str, **changes: Any) -> "Container":
        return self.container(["/bin/sh", "-c", text], **changes)

    def close(self) -> None:
        """End all that still runs."""
        for container in self.containers:
            self.call("delete", "--force", container.name)
            with contextlib.suppress(ChildProcessError, FileNotFoundError):
                os.waitpid(container.pid, 0)


@dataclass(kw_only=True)
class Container:
    """A container of a lab; its standard output and error are files in its bundle."""

    lab: Lab
    name: str
    bundle: Path

    def create(self, *words: str | Path, stdin: int = subprocess.DEVNULL) -> "subprocess.CompletedProcess[bytes]":
        with (self.bundle / "stdout").open("ab") as stdout, (self.bundle / "stderr").open("ab") as stderr:
            given = ("create", "--bundle", self.bundle, "--pid-file", self.bundle / "pid", *words, self.name)
            return self.lab.call(*given, stdin=stdin, stdout=stdout, stderr=stderr, capture_output=False)

    def created(self, *words: str | Path, stdin: int = subprocess.DEVNULL) -> "Container":
        done = self.create(*words, stdin=stdin)
        assert done.returncode == 0, self.stderr
        return self

    def started(self, *words: str | Path, stdin: int = subprocess.DEVNULL) -> "Container":
        self.created(*words, stdin=stdin)
        self.lab.says("start", self.name)
        return self

    @property
    def pid(self) -> int:
        return int((self.bundle / "pid").read_text())

    @property
    def qemu(self) -> int:
        monitor, qemu = json.loads(self.lab.says("ps", "--format=json", self.name))
        assert monitor == self.pid
        return int(qemu)

    @property
    def stdout(self) -> bytes:
        return (self.bundle / "stdout").read_bytes()

    @property
    def stderr(self) -> str:
        return (self.bundle / "stderr").read_text()

    @property
    def state(self) -> Mapping[str, Any]:
        found: dict[str, Any] = json.loads(self.lab.says("state", self.name))
        return found

    def until(self, text: bytes) -> None:
        """Until it has written this."""
        wait(lambda: text in self.stdout)

    def ended(self) -> int:
        """Its status, as a subreaper gets it."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            found, code = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(code)
            time.sleep(0.02)
        raise AssertionError("it does not end")

    def kill(self, number: int) -> None:
        self.lab.says("kill", self.name, str(number))

    def exec(
        self, argv: list[str], *words: str | Path, **changes: Any
    ) -> "subprocess.CompletedProcess[bytes]":  # fmt: skip
        """An exec that is waited for."""
        options = {
            name: changes.pop(name) for name in ("stdin", "input", "stdout", "capture_output") if name in changes
        }
        if "input" in options:
            options["stdin"] = None
        file = self.bundle / f"process-{time.monotonic_ns()}.json"
        process = json.loads((self.bundle / "config.json").read_text())["process"]
        file.write_text(json.dumps(process | {"args": argv} | changes))
        return self.lab.call("exec", "--process", file, *words, self.name, **options)

    def left_behind(self, argv: list[str], pid_file: Path, *words: str | Path, **changes: Any) -> None:
        """An exec as engines start it; whoever held its streams would wait for its end."""
        streams = {"stdout": subprocess.DEVNULL, "capture_output": False}
        assert self.exec(argv, "--detach", "--pid-file", pid_file, *words, **(streams | changes)).returncode == 0


class Engine:
    """What is behind --console-socket: it gets a terminal's master."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "console.sock"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen(1)
        self._server.settimeout(LIMIT)
        self.master = -1
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        self.seen = b""

    def _receive(self) -> None:
        client, _ = self._server.accept()
        with client:
            _, ancillary, _, _ = client.recvmsg(4096, socket.CMSG_SPACE(4))
        numbers = array.array("i")
        numbers.frombytes(ancillary[0][2][:4])
        self.master = numbers[0]

    def until(self, text: bytes) -> None:
        self._thread.join(LIMIT)
        os.set_blocking(self.master, False)

        def there() -> bool:
            with contextlib.suppress(BlockingIOError, OSError):
                self.seen += os.read(self.master, 4096)
            return text in self.seen

        wait(there)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
        self._server.close()


def kill_now(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
