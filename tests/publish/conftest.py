# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: Debian's registry and clients from the pinned tree, and a small checkout to publish."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.publish.kit import Server, small_checkout
from tools.pipeline.engine.tree import Tree
from tools.pipeline.publish.publishing import Built
from tools.pipeline.tasks.project import Project

Run = Callable[..., str]


@pytest.fixture(scope="session")
def publish_tree(project: Project) -> Tree:
    """docker-registry, oras, skopeo, cosign, softhsm2, opensc."""
    return project.trees.ensure("publish")


@pytest.fixture(scope="session")
def stranger(publish_tree: Tree, host_tool: Callable[..., Path]) -> Run:
    """stranger("oras", "pull", …): what a client of others prints; a status other than 0 fails the test."""

    def run(name: str, *words: str | Path, status: int = 0, **environment: str) -> str:
        argv = [host_tool(name, publish_tree), *words]
        variables = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment}
        done = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode == 0) == (status == 0), f"{argv}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture
def make_server(publish_tree: Tree, host_tool: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """make_server(login=…, tls=…): a registry that has started."""
    made: list[Server] = []

    def make(**options: bool) -> Server:
        program = host_tool("docker-registry", publish_tree)
        server = Server(program=program, folder=tmp_path / f"registry{len(made)}", **options)  # type: ignore[arg-type]
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A registry that anybody may write to, without TLS."""
    return make_server()


@pytest.fixture(autouse=True)
def pinned_git(
    project: Project,
    host_tool: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine may have no git; nobody's configuration of it is taken."""
    git = host_tool("git", project.trees.ensure("lint"))
    folder = tmp_path_factory.mktemp("git")
    (folder / "git").symlink_to(git)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """A checkout with an output folder."""
    return small_checkout(tmp_path / "checkout")
