# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Services on loopback, and workshops whose steps run there."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.engine.workshop import TREE, Workshop
from tests.pipeline.remote.reapi.kit import Casd, small_tree
from tests.pipeline.remote.reapi.liar import Liar, Lie
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.tree import Tree
from tools.pipeline.remote.reapi import address
from tools.pipeline.remote.reapi.service import Service, Settings
from tools.pipeline.tasks.project import Project

Start = Callable[..., Casd]


@pytest.fixture(scope="session")
def small(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A shell and a few programs."""
    return small_tree(project.trees.ensure(TREE), tmp_path_factory.mktemp("small") / "root")


class Away:
    """A machine: a workshop whose steps run at a service, and the service as it sees it."""

    def __init__(self, folder: Path, tree: Tree) -> None:
        self.workshop = Workshop(folder=folder, tools=tree)
        self.services: list[Service] = []

    def engine(self, where: str, *, checkout: str = "checkout", **settings: Any) -> Engine:
        engine = self.workshop.engine(checkout=checkout)
        known = settings.pop("known", {})
        service = Service(
            address.parse(where, **known),
            Settings(**{"execute": True, **settings}),
            cas=engine.cas,
            folder=engine.build / "remote",
        )
        self.services.append(service)
        return replace(engine, others=Others(remote=service))

    @property
    def service(self) -> Service:
        return self.services[-1]


@pytest.fixture
def machine(small: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Away]]:
    """machine(name): one with a cache and a checkout of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user-state"))
    made: list[Away] = []

    def make(name: str = "machine") -> Away:
        made.append(Away(tmp_path / name, small))
        return made[-1]

    yield make
    for one in made:
        for service in one.services:
            service.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(): a service that has started."""
    made: list[Casd] = []

    def make(**options: Any) -> Casd:
        made.append(Casd(folder=tmp_path / f"casd{len(made)}", **options))
        return made[-1].start()

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def liar() -> Iterator[Callable[..., Liar]]:
    """liar(address, lie): the service, with its answers changed."""
    made: list[Liar] = []

    def make(real: str, lie: Lie, **options: Any) -> Liar:
        made.append(Liar(real, lie, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
