# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: Debian's registry and clients from the pinned tree, and a small checkout to publish."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.publish import kit, people
from tests.publish.kit import Server, empty, small_checkout
from tests.publish.liar import Answer, Liar
from tests.publish.people import World
from tools.pipeline.engine.tree import Tree
from tools.pipeline.publish.publishing import Built
from tools.pipeline.tasks.project import Project

Run = Callable[..., str]
Lie = Callable[[Answer], None]


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


@pytest.fixture(scope="session")
def git(project: Project, host_tool: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pinned git: the machine may have none."""
    folder = tmp_path_factory.mktemp("git")
    (folder / "git").symlink_to(host_tool("git", project.trees.ensure("lint")))
    return folder


@pytest.fixture(autouse=True)
def pinned_git(git: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found; nobody's configuration of it is taken."""
    monkeypatch.setenv("PATH", f"{git}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """A checkout with an output folder."""
    return small_checkout(tmp_path / "checkout")


@pytest.fixture
def make_world(
    endorsed: Path, tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> Callable[..., World]:
    """make_world(): people around a small artifact and a registry without login and TLS, nothing published yet."""

    def make(built: Built | None = None, host: str = "", **options: Any) -> World:
        if built is None:
            shutil.copytree(endorsed / "checkout", tmp_path / "checkout", symlinks=True)
        small = built or kit.checkout_at(tmp_path / "checkout")
        return World(built=small, host=host or server.host, folder=tmp_path / "people", capfd=capfd, **options)

    return make


@pytest.fixture(scope="session")
def endorsed(
    git: Path, publish_tree: Tree, host_tool: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `registry`, `checkout`, `people`: what the vendor has published as v1, SVN 1, endorsed by two."""
    folder = tmp_path_factory.mktemp("endorsed")
    program = host_tool("docker-registry", publish_tree)
    server = Server(program=program, folder=folder / "registry").start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{git}:/usr/bin:/bin")
        patch.setenv("DOCKER_CONFIG", "/nonexistent")
        made = World(built=people.small(folder / "checkout"), host=server.host, folder=folder / "people")
        made.publish()
        made.endorse("alice", "bob")
    server.kill()
    return folder


@pytest.fixture
def world(endorsed: Path, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> World:
    """A copy of that, in a registry of its own."""
    shutil.copytree(endorsed / "registry/data", server.folder / "data", dirs_exist_ok=True)
    for name in ("checkout", "people"):
        shutil.copytree(endorsed / name, tmp_path / name, symlinks=True)
    return World(
        built=kit.checkout_at(tmp_path / "checkout"), host=server.host, folder=tmp_path / "people", capfd=capfd
    )


@pytest.fixture
def token(
    publish_tree: Tree, stranger: Run, host_tool: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URI of a P-256 key in SoftHSM."""
    config = tmp_path / "softhsm2.conf"
    empty(tmp_path / "tokens")
    config.write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    module = "/usr/lib/softhsm/libsofthsm2.so"
    assert (publish_tree.path / module.lstrip("/")).exists()
    soft = {"SOFTHSM2_CONF": str(config)}
    stranger("softhsm2-util", "--init-token", "--free", "--label", "test", "--pin", "1234", "--so-pin", "5678", **soft)
    stranger("pkcs11-tool", "--module", module, "--token-label", "test", "--login", "--pin", "1234", "--keypairgen",
             "--key-type", "EC:prime256v1", "--label", "sign", "--id", "02", **soft)  # fmt: skip
    pin = tmp_path / "pin"
    pin.touch(0o600)
    pin.write_text("1234\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    # Wrappers may be called after their tree, too.
    folder = empty(tmp_path / "bin")
    (folder / "pkcs11-tool").symlink_to(host_tool("pkcs11-tool", publish_tree))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return f"pkcs11:token=test;object=sign?module-path={module}&pin-source={pin}"


@pytest.fixture
def liar(server: Server) -> Iterator[Callable[[Lie], Liar]]:
    """liar(change): the registry, with its answers changed."""
    made: list[Liar] = []

    def make(change: Lie) -> Liar:
        made.append(Liar(server.host, change))
        return made[-1]

    yield make
    for one in made:
        one.close()
