# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit cache` and `./doit gc` on a copy with a cache of its own: what they show, remove and refuse."""

import os
import subprocess
import sys
import time
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

    def run(self, command: str, *options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tools.pipeline.front", command, *options],
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
    done = site.run("cache")
    assert done.returncode == 0, done.stderr
    rows = {line[:18].strip(): line[18:].split() for line in done.stdout.splitlines()}
    assert rows["downloads"][:3] == ["1", "6", "B"]
    assert rows["other files"] == ["1", "97.7", "KiB", "-", "-", "-", "97.7", "KiB", "97.7", "KiB"]
    assert rows["tool trees"][0] == "2"
    assert "steps/, which this version does not use" in done.stdout
    assert site.present() == [True] * 4


def test_what_is_old_and_not_needed_goes(site: Site) -> None:
    os.utime(site.stray)
    would = site.run("gc", "--dry-run")
    assert (would.returncode, site.present()) == (0, [True] * 4), would.stderr
    done = site.run("gc")
    assert done.returncode == 0, done.stderr
    assert "would remove" in would.stderr
    assert "removed" in done.stderr
    # The stray was used now: another checkout may need it.
    assert site.present() == [True, True, True, False]
    hours_ago(site.stray, 2)
    assert site.run("gc", "--keep", "3h").returncode == 0
    assert site.present() == [True, True, True, False]
    assert site.run("gc", "--keep", "1h").returncode == 0
    assert site.present() == [True, False, True, False]


def test_beyond_the_size_goes_also_what_was_used_lately(site: Site) -> None:
    for path in (site.stray, site.old_tree / "tree.json"):
        hours_ago(path, 2)
    assert site.run("gc", "--max", "1G").returncode == 0
    assert site.present() == [True] * 4
    os.utime(site.stray)
    done = site.run("gc", "--max", "0M")
    assert done.returncode == 0
    # Neither what this checkout needs, nor what was used within the hour.
    assert site.present() == [True, True, True, False]
    assert "note: this checkout or a build needs what is left" in done.stderr


def hours_ago(path: Path, hours: int) -> None:
    os.utime(path, (time.time() - hours * 3600,) * 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--keep", "x"), "'x' is not a time in hours or days"),
        (("--max", "3 gigabytes"), "'3 gigabytes' is not a size in MiB, GiB or TiB"),
    ],
)
def test_mistakes_are_one_line(site: Site, options: tuple[str, ...], says: str) -> None:
    done = site.run("gc", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert site.present() == [True] * 4
