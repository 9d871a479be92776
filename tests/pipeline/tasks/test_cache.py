# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit cache` on a copy of the checkout with a cache of its own: what it shows, what it removes, what it refuses."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.tasks.project import Project


@dataclass(frozen=True, kw_only=True)
class Site:
    """A checkout and its cache: a pinned download, one of an older lock, a current and an old tree; all from 1970."""

    root: Path
    cache: Path
    pinned: Path
    stray: Path
    tree: Path
    old_tree: Path

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tools.pipeline.front", "cache", *options],
            cwd=self.root,
            env={**os.environ, "SEV_ARTIFACTS_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    def present(self) -> list[bool]:
        return [path.exists() for path in (self.pinned, self.stray, self.tree, self.old_tree)]


@pytest.fixture
def site(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SEV_ARTIFACTS_CACHE", str(cache))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = copy_all(repository, tmp_path / "checkout")
    project = Project.load(root)
    # Nothing is hashed here, so any bytes do for the pinned one.
    cas = Cas(root=cache)
    pinned = cas.path(project.sources[0].pin.sha256)
    stray = cas.path(cas.put_bytes(b"x" * 100_000).sha256)
    tree = next(path for path in project.trees.current() if path.name.startswith("python-"))
    old_tree = tree.with_name(f"python-{'0' * 32}")
    pinned.parent.mkdir(parents=True)
    pinned.write_bytes(b"pinned")
    for folder in (tree, old_tree):
        (folder / "root/usr").mkdir(parents=True)
        (folder / "tree.json").write_text("{}")
    for path in (pinned, stray, tree / "tree.json", old_tree / "tree.json"):
        os.utime(path, (0, 0))
    return Site(root=root, cache=cache, pinned=pinned, stray=stray, tree=tree, old_tree=old_tree)


def test_it_shows_kinds_sizes_and_ages_and_removes_nothing(site: Site) -> None:
    (site.cache / "steps").mkdir()
    done = site.run()
    assert done.returncode == 0, done.stderr
    rows = {line[:18].strip(): line[18:].split() for line in done.stdout.splitlines()}
    assert rows["downloads"][:3] == ["1", "6", "B"]
    assert rows["other files"] == ["1", "97.7", "KiB", "-", "-", "-", "97.7", "KiB", "97.7", "KiB"]
    assert rows["tool trees"][0] == "2"
    assert "steps/, which this version does not use" in done.stdout
    assert site.present() == [True] * 4


def test_prune_removes_what_is_old_and_not_needed(site: Site) -> None:
    os.utime(site.stray)
    done = site.run("--prune")
    assert done.returncode == 0, done.stderr
    assert "removed" in done.stderr
    # The stray was used today: another checkout may need it.
    assert site.present() == [True, True, True, False]
    assert site.run("--prune", "--days", "0").returncode == 0
    assert site.present() == [True, False, True, False]


def test_prune_stops_at_the_size(site: Site) -> None:
    assert site.run("--prune", "--size", "1G").returncode == 0
    assert site.present() == [True] * 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--prune", "--days", "x"), "'x' is not a whole number of days"),
        (("--prune", "--size", "3 gigabytes"), "'3 gigabytes' is not a size in MiB or GiB"),
        (("--days", "3"), "--days and --size belong to --prune"),
    ],
)
def test_mistakes_are_one_line(site: Site, options: tuple[str, ...], says: str) -> None:
    done = site.run(*options)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert site.present() == [True] * 4
