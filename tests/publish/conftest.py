# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: Debian's registry and clients from the pinned tree, and a small checkout to publish."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.publish import kit, people
from tests.publish.kit import Server, empty, small_checkout
from tests.publish.liar import Answer, Liar
from tests.publish.people import NAME, World
from tools.pipeline.engine.tree import Tree
from tools.pipeline.publish.publishing import Built
from tools.pipeline.registry import client, oci, target
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.target import Tally
from tools.pipeline.repro.watch import watcher
from tools.pipeline.sign import statements
from tools.pipeline.tasks.project import Project
from tools.sev.formats import PROVENANCE, SUBJECT
from tools.sev.registry.reference import Reference

Run = Callable[..., str]
Lie = Callable[[Answer], None]


WISH = watcher.Wish(to="", key="", branch="origin/HEAD", every=0.01, once=True, days="365", ca="", plain_http=True)


@dataclass
class Service:
    """A vendor who publishes, and a rebuilder with a clone of the vendor's checkout."""

    world: World
    folder: Path
    clone: Path

    @property
    def registry(self) -> client.Registry:
        """As a stranger has it who may write there."""
        return client.Registry(Reference(host=self.world.host, name=NAME), Options(plain_http=True))

    def look(self, who: str = "bob", **options: Any) -> None:
        wish = replace(WISH, to=self.world.place, key=self.world.keys[who])
        watcher.run(self.clone, replace(wish, **options))

    def process(self) -> subprocess.Popen[bytes]:
        """One look, by a process of its own."""
        wish = replace(WISH, to=self.world.place, key=self.world.keys["bob"])
        run = "from tools.pipeline.repro.watch.watcher import Wish, run"
        code = f"from pathlib import Path\n{run}\nrun(Path({str(self.clone)!r}), {wish!r})"
        return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().split() if path.exists() else []

    def commit(self, name: str, branch: str = "main") -> None:
        """The vendor has one more file."""
        root = self.world.built.root
        (root / name).write_text(f"{name}\n")
        kit.commit(root, "git", "checkout", "-q", "-B", branch)
        kit.commit(root, "git", "add", name)
        kit.commit(root, "git", "commit", "-qm", name)

    def endorsed(self, *tags: str) -> None:
        """By bob, as somebody who pulls sees it."""
        policy = self.world.policy(endorsers=1, principals={"vendor": ["vendor"], "bob": ["bob"]}, **{"minimum-svn": 0})
        for tag in tags:
            said = self.world.accepted(
                f"pulled {tag} {len(self.log())}", ref=f"{self.world.place}:{tag}", policy=policy
            )
            assert "endorsed   by bob" in said

    def claimed(self, commit: str, tag: str = "v1") -> None:
        """A stranger's provenance, before the vendor's in the list: that the artifact comes from that commit."""
        registry = self.registry
        subject = registry.resolve(tag)
        assert subject is not None
        says = {"buildDefinition": {"externalParameters": {"source": {"digest": {"gitCommit": commit}}}}}
        payload = statements.statement([(SUBJECT, subject.descriptor.sha256)], PROVENANCE, says)
        attached = statements.attached(payload, None, subject=subject.descriptor, says="0" * 64, created="")
        target.attach(registry, attached, subject.descriptor, Tally())
        listed = registry.resolve(oci.referrers_tag(subject.descriptor))
        assert listed is not None
        (*others, last) = json.loads(listed.data)["manifests"]
        registry.manifest(oci.of_bytes(oci.index([last, *others]), oci.INDEX), oci.referrers_tag(subject.descriptor))

    def head(self) -> str:
        """The vendor's commit."""
        argv = ["git", "-C", str(self.world.built.root), "rev-parse", "HEAD"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


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


@pytest.fixture
def service(
    make_world: Callable[..., World], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Service:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    folder = tmp_path / "service"
    folder.mkdir()
    built = people.small(folder / "built")
    root = built.root
    (root / ".gitignore").write_text("/out\n/cache\n/build\n")
    argv = [sys.executable, "-m", "tests.publish.standin_doit", str(folder)]
    (root / "doit").write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    (root / "doit").chmod(0o755)
    kit.commit(root, "git", "add", "-A")
    kit.commit(root, "git", "commit", "-qm", "doit")
    made = make_world(kit.checkout_at(root))
    made.publish()
    subprocess.run(["git", "clone", "-q", str(root), str(tmp_path / "clone")], check=True)
    return Service(world=made, folder=folder, clone=tmp_path / "clone")
