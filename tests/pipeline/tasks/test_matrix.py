# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit matrix`: a row an output folder, what makes it, and what is there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.checkout import copy_all
from tools.pipeline.base import files
from tools.pipeline.tasks.project import Project


def doit(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "tools.pipeline.front", *words]
    return subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)


def rows(root: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Name → row; what a CI would take for its jobs."""
    done = doit(root, "matrix", "--json", *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    return {row["name"]: row for row in document["include"]}


def test_a_row_for_each_profile_in_each_series(repository: Path, project: Project, artifacts: Path) -> None:
    found = rows(repository)
    assert list(found) == [profile.name for profile in project.recipes.all_profiles]
    for profile in project.recipes.all_profiles:
        row = found[profile.name]
        assert (row["series"], row["profile"], row["firmware"]) == (profile.series, profile.recipe, "ovmf")
        assert [kernel["name"] for kernel in row["kernels"]] == [kernel.name for kernel in profile.kernels]
        assert row["folder"] == project.out(profile).name
        assert row["default"] == (profile in project.recipes.profiles)
        assert row["command"] == f"./doit artifacts:{profile.name}"
    own = found["production"]
    assert own["state"] == "built"
    kernel, network = own["kernels"]
    assert kernel["sha256"] == files.of_file(artifacts / "vmlinuz")
    assert network["file"] == f"{artifacts.name}/vmlinuz-network"
    assert own["size"] == sum(
        (artifacts / name).stat().st_size for name in ("vmlinuz", "initramfs.cpio.zst", "OVMF.fd")
    )
    assert own["manifest"] == files.of_file(artifacts / "manifest.json")


def test_the_commands_of_the_rows_are_tasks(repository: Path) -> None:
    """CI runs them as they stand."""
    tasks = {line.split()[0] for line in doit(repository, "list", "--all").stdout.splitlines() if line.strip()}
    for row in rows(repository).values():
        for command in (row["command"], row["check"]):
            assert command.removeprefix("./doit ") in tasks, command


def test_one_series_and_none(repository: Path) -> None:
    found = rows(repository, "--series", "6.18")
    assert {row["series"] for row in found.values()} == {"6.18"}
    assert {"6.18", "6.18-debug"} <= set(found)
    done = doit(repository, "matrix", "--series", "5.9")
    assert done.returncode == 2
    assert "--series: '5.9' is no kernel series here; there are: 6.12, 6.18, 7.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_there_is_told_without_making_anything(repository: Path, tmp_path: Path) -> None:
    """A folder that was filled from other recipes is none that is built."""
    root = copy_all(repository, tmp_path / "checkout")
    assert rows(root)["debug"]["state"] == "not built"
    (root / "out-debug").mkdir()
    for name in ("vmlinuz", "manifest.json"):
        (root / "out-debug" / name).write_text("somebody else's\n")
    row = rows(root)["debug"]
    assert row["state"] == "differs"
    assert (row["size"], row["files"]) == (len("somebody else's\n"), [])
    text = doit(root, "matrix").stdout
    assert "linux-6.12-debug" in text
    assert text.splitlines()[-1].startswith("0 of ")
    assert not (root / "build/results").exists()
