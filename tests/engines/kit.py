# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""docker, podman and containerd in a box, each with one of its runtimes."""

import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tests.engines.box import LIMIT, Box, Done, wait
from tests.engines.images import NAME

_COUNT = itertools.count()


def guests(box: Box) -> dict[int, str]:
    """The command lines of the guests' QEMUs in a box, by their pids there; not those that are only asked something."""
    running = box.processes().items()
    return {pid: words for pid, words in running if "/qemu-" in f"/{words.split()[0]}" and " -kernel " in words}


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """An OCI runtime as engines are told of it. `arguments` go before its command."""

    name: str
    path: str
    arguments: tuple[str, ...] = ()


RUNC = Runtime(name="runc", path="/usr/sbin/runc")
CRUN = Runtime(name="crun", path="/usr/bin/crun")


@dataclass(kw_only=True)
class Engine:
    """What all three can do. `runtime` is the one that run() takes."""

    box: Box
    runtime: Runtime
    name = ""
    image = NAME

    def using(self, runtime: Runtime) -> Self:
        """The same engine with another runtime."""
        return replace(self, runtime=runtime)

    def words(self, *options: str, argv: Sequence[str], image: str = "") -> list[str]:
        """The command line of a container that runs `argv`, for Box.argv()."""
        raise NotImplementedError

    def run(self, *options: str, argv: Sequence[str], stdin: bytes = b"", limit: float = LIMIT) -> Done:
        """Run a container to its end."""
        return self.box.run(*self.words(*options, argv=argv), stdin=stdin, limit=limit)

    def says(self, *options: str, argv: Sequence[str], stdin: bytes = b"") -> str:
        """What a container writes that ends well."""
        done = self.run(*options, argv=argv, stdin=stdin)
        assert (done.status, done.complaint) == (0, ""), f"{argv}: {done}"
        return done.text

    def load(self, archive: Path) -> None:
        """Take the image from a file in Box.share."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Docker(Engine):
    """A dockerd of the box's own, with its own containerd, bridge and rules for packets."""

    runtimes: tuple[Runtime, ...] = (RUNC,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    daemon: "subprocess.Popen[bytes] | None" = None
    name = "docker"

    def start(self) -> "Docker":
        known = {r.name: {"path": r.path, "runtimeArgs": list(r.arguments)} for r in self.runtimes if r != RUNC}
        self.box.write("/etc/docker/daemon.json", json.dumps({"runtimes": known, **self.settings}))
        log = self.box.folder / "dockerd.log"
        self.daemon = self.box.spawn("dockerd", log=log)
        started = self.daemon

        def ready() -> bool:
            assert started.poll() is None, f"dockerd does not start:\n{log.read_text()[-3000:]}"
            return self.box.run("docker", "info", "--format", "{{.ServerVersion}}").text.strip() != ""

        wait(ready, limit=120, why="dockerd")
        return self

    def stop(self) -> None:
        """As a service manager does; containers that may live on do."""
        assert self.daemon is not None
        self.box.check("sh", "-c", "kill $(cat /run/docker.pid)")
        self.daemon.wait(timeout=120)

    def words(self, *options: str, argv: Sequence[str], image: str = "") -> list[str]:
        return ["docker", "run", f"--runtime={self.runtime.name}", *options, image or self.image, *argv]

    def load(self, archive: Path) -> None:
        self.box.check("docker", "load", "-i", f"/srv/{archive.name}")

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        """What a command says that must succeed."""
        return self.box.check(self.name, *words, stdin=stdin).strip()

    def inspect(self, name: str, form: str) -> Any:
        return json.loads(self("inspect", "--format", f"{{{{json {form}}}}}", name))

    def detached(self, *options: str, argv: Sequence[str]) -> str:
        """Start a container that stays; its id."""
        return self.box.check(*self.words("--detach", *options, argv=argv)).strip()

    def logs(self, name: str) -> tuple[str, str]:
        """Both streams."""
        done = self.box.run(self.name, "logs", name)
        assert done.status == 0, done
        return done.text, done.complaint

    def until_log(self, name: str, text: str) -> None:
        """Waits until a container has said something."""
        wait(lambda: text in self.logs(name)[0], why=f"{text!r} in the logs")


@dataclass(kw_only=True)
class Podman(Docker):
    """Podman without a daemon."""

    name = "podman"

    def start(self) -> "Podman":
        self.box.write("/etc/containers/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        # No systemd in the box, whose journal and groups are the default.
        text = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[containers]\nlog_driver = "k8s-file"\n'
        known = "".join(f'{r.name} = ["{r.path}"]\n' for r in self.runtimes if not r.arguments)
        self.box.write("/etc/containers/containers.conf", f"{text}[engine.runtimes]\n{known}")
        self.box.check("podman", "info")
        return self

    def stop(self) -> None:
        """There is nothing that runs."""

    def words(self, *options: str, argv: Sequence[str], image: str = "") -> list[str]:
        flags = [f"--runtime-flag={word.lstrip('-')}" for word in self.runtime.arguments]
        which = [f"--runtime={self.runtime.path}", *flags]
        return ["podman", *which, "run", *options, image or self.image, *argv]

    def load(self, archive: Path) -> None:
        self.box.check("podman", "load", "-i", f"/srv/{archive.name}")


@dataclass(kw_only=True)
class Containerd(Engine):
    """A containerd of its own, and its client ctr."""

    daemon: "subprocess.Popen[bytes] | None" = None
    name = "containerd"
    image = f"docker.io/library/{NAME}"

    def start(self) -> "Containerd":
        log = self.box.folder / "containerd.log"
        self.daemon = self.box.spawn("containerd", log=log)
        started = self.daemon

        def ready() -> bool:
            assert started.poll() is None, f"containerd does not start:\n{log.read_text()[-3000:]}"
            return self.box.run("ctr", "version").status == 0

        wait(ready, limit=120, why="containerd")
        return self

    def words(self, *options: str, argv: Sequence[str], image: str = "") -> list[str]:
        which = [] if self.runtime == RUNC else [f"--runc-binary={self.runtime.path}"]
        return ["ctr", "run", *which, *options, image or self.image, f"c{next(_COUNT)}", *argv]

    def load(self, archive: Path) -> None:
        self.box.check("ctr", "images", "import", "--snapshotter=overlayfs", f"/srv/{archive.name}")
