# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One registry for all tests, a repository of it for each."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import TREE
from tests.pipeline.remote.kit import Machine, make_keys
from tests.publish.kit import Server
from tools.attack.base.host_tools import HostTools
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project

Machines = Callable[..., Machine]
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def python_tree(project: Project) -> Tree:
    """Python, a shell, coreutils."""
    return project.trees.ensure(TREE)


@pytest.fixture(scope="session")
def registry_program(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's docker-registry."""
    folder = tmp_path_factory.mktemp("registry-program")
    return HostTools(folder=folder).wrapper("docker-registry", project.trees.ensure("publish"))


@pytest.fixture(scope="session")
def server(registry_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry without login and TLS."""
    made = Server(program=registry_program, folder=tmp_path_factory.mktemp("registry") / "server").start()
    yield made
    made.kill()


@pytest.fixture
def repository_name() -> str:
    """Of this test alone."""
    return f"team/cache{next(_NUMBERS)}"


@pytest.fixture
def place(server: Server, repository_name: str) -> str:
    """HOST/NAME of a shared cache that is empty."""
    return f"{server.host}/{repository_name}"


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of ci, alice and mallory."""
    return make_keys(tmp_path_factory.mktemp("people") / "keys")


@pytest.fixture
def machine(tmp_path: Path, python_tree: Tree, people: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """machine("name", lists=…, pushes=…): a machine that has built nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user-state"))
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")

    def make(
        name: str, *, lists: Sequence[str] = ("ci",), pushes: str = "", at: str = "", ca: Path | None = None
    ) -> Machine:
        return Machine(
            folder=tmp_path / name, place=at or place, tools=python_tree, keys=people, lists=lists, pushes=pushes, ca=ca
        )

    return make
