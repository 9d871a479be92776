# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Machines that share a registry: each with a cache, a seal, and a remote.toml of its own."""

import json
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipeline.engine.workshop import Workshop
from tests.publish.people import write_key
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.tree import Tree
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.remote import choose
from tools.pipeline.remote.shared import Shared
from tools.sev.registry.reference import Reference

PEOPLE = ("ci", "alice", "mallory")
TREE_KEY = "7" * 64


@dataclass(kw_only=True)
class Machine:
    """A user on a machine. `lists` are the builders whose results are taken, `pushes` whose key signs what is sent.

    With `ca` it speaks TLS.
    """

    folder: Path
    place: str
    tools: Tree
    keys: Path
    lists: Sequence[str] = ()
    pushes: str = ""
    ca: Path | None = None

    def __post_init__(self) -> None:
        self.workshop = Workshop(folder=self.folder, tools=self.tools)
        self.workshop.root.mkdir(parents=True, exist_ok=True)

    @property
    def config(self) -> Path:
        text = "".join(f'[builders.{name}]\nkey = "{self.keys}/{name}.pub"\n' for name in self.lists)
        text += f'[push]\nkey = "{self.keys}/{self.pushes}.key"\n' if self.pushes else ""
        text += f'[registry]\nca = "{self.ca}"\n' if self.ca else ""
        path = self.folder / "remote.toml"
        path.touch(0o600)
        path.write_text(text)
        return path

    def engine(self, *, checkout: str = "checkout") -> Engine:
        """Of a new process."""
        engine = self.workshop.engine(checkout=checkout)
        named = self.place if self.ca else f"http://{self.place}"
        remote = choose.remote(named, cas=engine.cas, folder=self.folder, path=self.config)
        engine.others = Others(remote=remote, tools_key=lambda _: TREE_KEY)
        return engine

    def build(self, *steps: Step) -> dict[str, str]:
        """Build in a new process, to its end: where the result of each step came from."""
        engine = self.engine()
        found = {step.name: str(engine.ensure(step).origin) for step in steps}
        assert engine.others.remote is not None
        engine.others.remote.end()
        return found

    def output(self, step: Step, name: str = "out") -> bytes:
        """The bytes of an output, in one more process."""
        engine, target = self.engine(), self.folder / "copy"
        target.unlink(missing_ok=True)
        engine.ensure(step)
        engine.copy(step, name, target)
        return target.read_bytes()


def shared(engine: Engine) -> Shared:
    remote = engine.others.remote
    assert isinstance(remote, Shared)
    return remote


def make_keys(folder: Path) -> Path:
    folder.mkdir()
    for name in PEOPLE:
        write_key(folder, name, p256=name == "alice")
    return folder


def registry(place: str) -> Registry:
    host, _, name = place.partition("/")
    return Registry(Reference(host=host, name=name), Options(plain_http=True, rounds=1))


def manifest(there: Registry, tag: str) -> dict[str, Any]:
    found = there.resolve(tag)
    assert found is not None
    document: dict[str, Any] = json.loads(found.data)
    return document


class Mute:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self.connections):
            one.close()
