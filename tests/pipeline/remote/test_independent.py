# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A rebuild, a check and an endorsement rest on what ran there: not on a cache, whoever has signed what is in it.

A result is planted, signed by a builder whom the user lists. A build with that remote takes it; a rebuild does not.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tests.publish.kit import WISH, Server, small_checkout
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import graph, others
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.merkle import File
from tools.pipeline.engine.store.results import Result
from tools.pipeline.publish import checkout as checkouts
from tools.pipeline.publish import publishing
from tools.pipeline.remote import choose
from tools.pipeline.repro import check, environments, rebuild
from tools.pipeline.repro.target import Place
from tools.pipeline.repro.variations import Name
from tools.pipeline.tasks.commands import repro
from tools.pipeline.tasks.project import Project

PLANTED = b"#!/bin/sh\necho planted\n"


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A checkout that is rebuilt."""
    return copy_all(repository, tmp_path / "copy")


@pytest.fixture
def planted(copy: Path, tmp_path: Path, place: str, people: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that takes results of ci, in whose registry is another launcher; with a cache of its own."""
    config = tmp_path / "remote.toml"
    config.write_text(f'[builders.ci]\nkey = "{people}/ci.pub"\n[push]\nkey = "{people}/ci.key"\n')
    real = Project.load(copy)
    tools = real.trees.ensure("python")
    step = real.plan.launcher
    key = real.engine.key(step)
    assert key is not None
    cas = Cas(root=tmp_path / "ci")
    remote = choose.remote(f"http://{place}", cas=cas, folder=cas.root, path=config)
    node = File(digest=cas.put_bytes(PLANTED), executable=True)
    wanted = others.wanted(step, key, seconds=None)
    remote.offer(wanted, Result(key=key, outputs=dict.fromkeys(step.outputs, node), seconds=60.0))
    ci = Others(remote=remote, tools_key=real.trees.key)
    ci.offer_tools("python", tools)
    remote.end()
    monkeypatch.setenv("SEV_ARTIFACTS_REMOTE", f"http://{place}")
    monkeypatch.setenv("SEV_ARTIFACTS_REMOTE_CONFIG", str(config))
    monkeypatch.setenv("SEV_ARTIFACTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Project.load(copy)


def test_a_rebuild_takes_nothing_of_others(planted: Project, project: Project, tmp_path: Path) -> None:
    step = planted.plan.launcher
    # The control: an ordinary build believes ci, and needs no tool tree for it.
    assert planted.engine.ensure(step).outputs[step.outputs[0]].digest.size == len(PLANTED)
    assert graph.taken(planted.engine, [step])[0].startswith("launcher (cache 127.0.0.1")
    target = repro.targets(planted)["launcher"]
    place = Place(root=planted.root, cache=project.cas.root, folder=tmp_path / "rebuild")
    built = check.build(environments.plain(check.prepare(target, place)))
    assert PLANTED not in {(built.files / name).read_bytes() for name in built.digests}
    made = rebuild._made(place, [step.name])
    assert made[step.name] == planted.engine.key(step), "it ran there"


def doit(checkout: Path, *words: str) -> str:
    """What `./doit` says; its own settings are those of the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", *words],
        cwd=checkout, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_doit_takes_and_sends(
    planted: Project, tmp_path: Path, people: Path, server: Server, repository_name: str
) -> None:
    """No task fetches a source or sets a tool tree up before the cache has been asked; what is sent is waited for."""
    step = planted.plan.launcher
    said = doit(planted.root, step.name)
    assert f"{step.name}: cache 127.0.0.1" in said
    assert "results found: 1, 0 B came" in said
    assert not re.search("fetch|toolchain", said), said
    assert not (tmp_path / "cache/trees").exists()
    row = next(line for line in doit(planted.root, "graph").splitlines() if line.startswith(f"{step.name} "))
    assert f"cache {server.host}/{repository_name}, signed by ci " in row
    # Alice has run the step herself, and has not sent it yet.
    config = tmp_path / "remote.toml"
    config.write_text(config.read_text().replace(f"{people}/ci.key", f"{people}/alice.key"))
    key = planted.engine.key(step)
    assert key is not None
    node = File(digest=planted.cas.put_bytes(b"hers"), executable=True)
    planted.engine.results.write(Result(key=key, outputs=dict.fromkeys(step.outputs, node), seconds=1.0))
    before = set(server.tags(repository_name))
    assert "sent: 1, 4 B" in doit(planted.root, step.name)
    assert len(set(server.tags(repository_name)) - before) == 1
    assert " sent:" not in doit(planted.root, step.name), "once a checkout"


def test_environments_of_checks_know_no_remote(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the home and the configuration of the caller, where a list of builders may lie."""
    for name in ("", "_CONFIG"):
        monkeypatch.setenv(f"SEV_ARTIFACTS_REMOTE{name}", "/set")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/set")
    job = environments.Job(
        folder=tmp_path / "check", source=repository, bundle=tmp_path, tasks=(), files=(), trees=("python",)
    )
    environments.varied(job, list(Name), tree=tmp_path, shift="+200d")
    specs = ["varied/results/spec.json", "plain/spec.json"]
    for cached in (False, True):
        shutil.rmtree(job.folder / "plain", ignore_errors=True)
        environments.plain(job, cached=cached, memory=cached)
        for spec in specs:
            environment = json.loads((job.folder / spec).read_bytes())["environment"]
            assert "/set" not in environment.values()
            assert not any("REMOTE" in name for name in environment)
            assert environment["HOME"] != str(Path.home())


def test_what_others_have_made_is_not_published(tmp_path: Path) -> None:
    """Unless somebody says why, which is then in the provenance."""
    built = dataclasses.replace(small_checkout(tmp_path / "checkout"), taken=["kernel (cache a/b)"])
    ours = checkouts.look(built.root)
    assert any("1 steps were not run here: kernel (cache a/b)" in line for line in publishing.object_to(built, ours))
    with pytest.raises(BuildError, match="is not published"):
        publishing.run(built, dataclasses.replace(WISH, to=str(tmp_path / "layout"), without_tools=True))
    clean = dataclasses.replace(built, taken=())
    assert publishing.object_to(clean, ours) == []
    publishing.run(clean, dataclasses.replace(WISH, to=str(tmp_path / "layout"), without_tools=True))
