# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The real artifacts, 400 MB, to Debian's registry and back, killed on both ways; rebuilt and endorsed by two."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.loopback import Between
from tests.publish.conftest import Run
from tests.publish.kit import Server
from tests.publish.people import write_key
from tools.attack.guests import roots
from tools.attack.guests.run import Guest
from tools.pipeline.base import ambient
from tools.pipeline.tasks.project import Project

NAME = "team/sev-artifacts"
HEADING = "Vouch for what somebody has published, and take it"
PLACE = "registry.example/team/app:v1"  # the page's
WHY = ("--although", "a test may run in a checkout with changes")


@pytest.fixture
def doit(repository: Path) -> Callable[..., subprocess.Popen[str]]:
    """./doit as a person starts it, in a session of its own."""

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(repository / "doit"), *words],
            cwd=repository, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    return start


def end(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def kill_after(server: Server, start: Callable[[str], subprocess.Popen[str]], count: int, *, down: bool) -> None:
    """start(host), through a connection on which everything is killed after so many bytes."""
    found: list[int] = []
    between = Between(server.port, after=count, then=lambda: os.killpg(found[0], signal.SIGKILL), down=down)
    process = start(between.host)
    found.append(process.pid)
    process.communicate(timeout=300)
    between.close()
    assert process.returncode == -signal.SIGKILL


def test_there_and_back(
    doit: Callable[..., subprocess.Popen[str]], server: Server, artifacts: Path, stranger: Run, tmp_path: Path
) -> None:
    def publish(host: str) -> subprocess.Popen[str]:
        return doit("publish", "--to", f"{host}/{NAME}:v1", "--plain-http", *WHY)

    alone = {"SEV_ARTIFACTS_CACHE": str(tmp_path / "cache"), "SEV_ARTIFACTS_MIRROR": "http://127.0.0.1:1/debian"}

    def fetch(host: str) -> subprocess.Popen[str]:
        return doit("fetch", "--from", f"{host}/{NAME}:v1", "--plain-http", **alone)

    for count in (3_000_000, 150_000_000):
        kill_after(server, publish, count, down=False)
        assert not server.tags(NAME)
    assert " there" in end(publish(server.host))
    assert server.tags(NAME)[-1] == "v1"
    digest = stranger("oras", "resolve", "--plain-http", f"{server.host}/{NAME}:v1").strip()
    again = end(publish(server.host))
    assert digest in again
    assert "sent        0 blobs" in again
    stranger("oras", "pull", "--plain-http", f"{server.host}/{NAME}:v1", "-o", tmp_path / "pulled")
    for path in artifacts.rglob("*"):
        if path.is_file():
            assert (tmp_path / "pulled" / path.relative_to(artifacts)).read_bytes() == path.read_bytes(), path
    kill_after(server, fetch, 100_000_000, down=True)
    end(fetch(server.host))
    # Nothing is missing: with no place to look for anything, nothing is looked for.
    end(doit("fetch:sources", "fetch:build", "fetch:python", **alone))


# ── two principals, two clones ──


@dataclass(frozen=True)
class Principal:
    """Somebody with a clone, a home and a cache of his own, and a key."""

    clone: Path
    key: Path
    environment: Mapping[str, str]

    def vouch(self, place: str, manifest: Path) -> None:
        """What docs/howto.md types: rebuild it, and sign that."""
        self.front(*typed(self.clone, "rebuild", {"manifest.json": manifest}))
        self.endorse(place, self.key)

    def endorse(self, place: str, key: Path) -> None:
        self.front(*typed(self.clone, "endorse", {"alice.key": key, PLACE: place}), "--plain-http")

    def front(self, *words: str | Path, status: int = 0) -> str:
        argv = [sys.executable, "-m", "tools.pipeline.front", *words]
        done = subprocess.run(argv, cwd=self.clone, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr


def typed(root: Path, command: str, names: Mapping[str, str | Path]) -> list[str]:
    """The words behind a command in docs/howto.md, with names of this test in the place of the page's."""
    page = (root / "docs/howto.md").read_text().split(f"## {HEADING}\n")[1].split("```")[1]
    (line,) = (words for text in page.splitlines() if command in (words := shlex.split(text)))
    found = line[line.index(command) :]
    assert set(names) <= set(found)
    return [str(names.get(word, word)) for word in found]


def principal(project: Project, folder: Path, git: Path) -> Principal:
    """A clone of this commit. Its cache is empty; downloads come from this machine's, results do not."""
    folder.mkdir()
    environment = {
        "PATH": f"{git}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "SEV_ARTIFACTS_MIRROR": f"bundle={project.cas.root.as_uri()}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    subprocess.run([git / "git", "clone", "-q", project.root, folder / "clone"], check=True, env=environment)
    key = Path(write_key(folder, folder.name))
    return Principal(clone=folder / "clone", key=key, environment=environment)


@pytest.fixture
def three(project: Project, git: Path, tmp_path: Path) -> tuple[Principal, Principal, Principal]:
    """alice and bob, who rebuild, and a vendor with the results of this machine."""
    alice, bob, vendor = (principal(project, tmp_path / name, git) for name in ("alice", "bob", "vendor"))
    shared = {**vendor.environment, "SEV_ARTIFACTS_CACHE": str(project.cas.root), **_state()}
    return alice, bob, replace(vendor, environment=shared)


@pytest.fixture
def boots(qemu: Path, busybox: Path, tmp_path: Path) -> Callable[[Path], subprocess.CompletedProcess[bytes]]:
    """boots(launcher): what a guest says that ends with 7."""
    root = roots.tar(roots.folder(busybox, tmp_path / "root/busybox"), tmp_path / "busybox.tar")
    return lambda launcher: Guest(launcher=launcher, qemu=qemu, rootfs=root).sh("id -u; exit 7")


def test_two_who_have_rebuilt_it(
    three: tuple[Principal, Principal, Principal],
    server: Server,
    artifacts: Path,
    boots: Callable[[Path], subprocess.CompletedProcess[bytes]],
    tmp_path: Path,
) -> None:
    """Each builds from nothing; what both have signed is pulled with k = 2, and boots. An hour on two cores."""
    place = f"{server.host}/{NAME}:v1"
    alice, bob, vendor = three
    # The vendor publishes what he has built: here, what this checkout has.
    shutil.copytree(artifacts, vendor.clone / "out")
    vendor.front("publish", "--to", place, "--key", vendor.key, "--plain-http", "--without-tools", *WHY)
    policy = tmp_path / "policy.toml"

    def write_policy(alices: Sequence[Path], minimum: int = 0) -> None:
        policy.write_text(
            f'schema = 1\nname = "whole"\nprofile = "production"\nendorsers = 2\nminimum-svn = {minimum}\n'
            f'latest = false\nalthough = true\nprovenance = ["vendor"]\n'
            f'[principals.vendor]\nkeys = ["{vendor.key.with_suffix(".pub")}"]\n'
            f'[principals.bob]\nkeys = ["{bob.key.with_suffix(".pub")}"]\n'
            f"[principals.alice]\nkeys = {json.dumps([str(key.with_suffix('.pub')) for key in alices])}\n"
        )

    def pull(name: str, status: int) -> str:
        words = typed(bob.clone, "pull", {PLACE: place, "policy.toml": policy, "pulled": tmp_path / name})
        argv: list[str | Path] = [artifacts / "sev-launch", *words, "--plain-http", "--state", tmp_path / "state"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert (tmp_path / name).exists() == (status == 0)
        return done.stdout + done.stderr

    manifest = tmp_path / "manifest.json"
    shutil.copy(artifacts / "manifest.json", manifest)
    second = Path(write_key(tmp_path, "second"))
    write_policy([alice.key, second])
    # With results of a cache, the second time: that is no rebuild to vouch for.
    alice.vouch(place, manifest)
    alice.endorse(place, second)
    assert "endorsed by 1 of the 2 principals that it takes (alice)" in pull("one", 1)
    alice.front("rebuild", "--manifest", manifest, "--cached")
    assert "--cached" in alice.front("endorse", "--to", place, "--plain-http", "--key", alice.key, status=1)
    bob.vouch(place, manifest)
    write_policy([alice.key], minimum=1)
    assert "has SVN 0, the policy's minimum is 1" in pull("low", 1)
    write_policy([alice.key])
    assert "endorsed   by alice, bob" in pull("pulled", 0)
    done = boots(tmp_path / "pulled/sev-launch")
    assert (done.returncode, done.stdout) == (7, b"0\n"), done
    # From SVN 2 on, says bob: what he has endorsed is too old.
    bob.front(*typed(bob.clone, "latest", {"alice.key": bob.key, PLACE: place}), "--plain-http")
    assert "the same principal has said 2" in pull("revoked", 1)


def _state() -> dict[str, str]:
    """Where this user's seal is, or the vendor's cache would be somebody else's."""
    found = ambient.state_dir()
    return {"XDG_STATE_HOME": str(found.parent)} if found is not None else {}
