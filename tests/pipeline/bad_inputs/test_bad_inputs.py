# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One thing wrong in a copy of the checkout's own recipes: one line, exit status 2, no traceback.

Most cases run the real dodo.py in this process, because starting Python takes longer than all else; some of them
again as the real command. What loading does not look at is given to the action of the step that does, in the real
sandbox, on what the build has made of all else.
"""

import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doit.cmd_base import ModuleTaskLoader

from tests.checkout import copy_all, copy_recipes
from tests.pipeline.bad_inputs.cases import CASES, Case
from tools.pipeline.base import ambient
from tools.pipeline.front import main
from tools.pipeline.toolchain.trees import Trees


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a command ended."""

    status: int
    stderr: str


Doit = Callable[[Path, str], Done]

STEPS = {"digests-production", "runtime-production", "dropins-kata"}


@pytest.fixture
def doit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Doit:
    """doit(checkout, "list") or doit(checkout, "TASK"), in this process."""

    def run(checkout: Path, what: str) -> Done:
        err = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "__stderr__", err)
            patch.setattr(ambient, "repository_root", lambda: checkout)
            # Not to hash the tool trees once for each case.
            patch.setattr(Trees, "checked", Trees.ensure)
            try:
                namespace = runpy.run_path(str(repository / "dodo.py"))
                arguments = ["list", "--all", "--quiet"]
                if what != "list":
                    namespace = _alone(namespace, what)
                    arguments = ["run", what]
                status = main.main(arguments, loader=ModuleTaskLoader(namespace))
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else -1
        return Done(status=status, stderr=err.getvalue())

    return run


def _alone(namespace: dict[str, Any], wanted: str) -> dict[str, Any]:
    """One task of the graph, with its actions and nothing else."""
    made = namespace["task__locks" if wanted == "_locks" else "task_steps"]()
    task = next(task for task in ([made] if isinstance(made, dict) else made) if task["basename"] == wanted)
    return {
        "DOIT_CONFIG": namespace["DOIT_CONFIG"],
        "task_alone": lambda: {"basename": wanted, "actions": task["actions"]},
    }


def break_it(case: Case, checkout: Path) -> None:
    path = checkout / case.file
    if case.old is None:
        path.unlink()
        return
    data = path.read_bytes()
    old = case.old.encode()
    assert old in data, f"{case.file} has no {case.old!r} any more"
    path.write_bytes(data.replace(old, case.new, 1))


def judge(case: Case, done: Done) -> None:
    assert "Traceback" not in done.stderr
    # A step tells that it runs.
    running = rf"   {re.escape(case.command)}: "
    lines = [line for line in done.stderr.splitlines() if not re.match(running, line)]
    assert len(lines) == 1, done.stderr
    # "doit: error: " while loading, "error: TASK: " from a task.
    line = re.sub(rf"^(doit: error: |error: {re.escape(case.command)}: )", "", lines[0])
    assert line != lines[0]
    assert line.startswith(case.where), line
    assert case.says in line, line
    assert not case.where.endswith(":") or re.match(r"\d+: ", line.removeprefix(case.where)), "no line number"
    assert len(line) < 500
    assert done.status == 2


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of the recipes, and of the programs that steps run in the sandbox."""
    copy = copy_recipes(repository, tmp_path / "checkout")
    shutil.copytree(repository / "tools", copy / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_nothing_broken(checkout: Path, doit: Doit) -> None:
    assert doit(checkout, "list") == Done(status=0, stderr="")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_one_line_and_status_2(case: Case, checkout: Path, doit: Doit, request: pytest.FixtureRequest) -> None:
    if case.command in STEPS:
        # Or everything that the step needs would be built.
        request.getfixturevalue("artifacts")
    break_it(case, checkout)
    judge(case, doit(checkout, case.command))


def start(checkout: Path, *args: str, **environment: str) -> Done:
    """The real command."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", *args],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(status=done.returncode, stderr=done.stderr)


@pytest.fixture(scope="module")
def whole(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the code, for real commands."""
    return copy_all(repository, tmp_path_factory.mktemp("whole") / "checkout")


def test_the_real_command_with_nothing_broken(whole: Path) -> None:
    assert start(whole, "list") == Done(status=0, stderr="")


REAL = [case for case in CASES if case.real]


@pytest.mark.parametrize("case", REAL, ids=lambda case: case.id)
def test_the_real_command(case: Case, whole: Path) -> None:
    path = whole / case.file
    good = path.read_bytes()
    break_it(case, whole)
    try:
        judge(case, start(whole, "list"))
    finally:
        path.write_bytes(good)


def test_a_bad_cache_setting(whole: Path) -> None:
    done = start(whole, "fetch:sources", SEV_ARTIFACTS_CACHE="relative/folder")
    assert done.stderr == (
        "doit: error: SEV_ARTIFACTS_CACHE: 'relative/folder' is not an absolute path; "
        "set it to an absolute folder or unset it\n"
    )
    assert done.status == 2


def test_a_bad_mirror_setting(whole: Path) -> None:
    done = start(whole, "fetch:sources", SEV_ARTIFACTS_MIRROR="gopher://example.invalid/debian")
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(lines) == 1
    assert "SEV_ARTIFACTS_MIRROR" in lines[0]
    assert "Traceback" not in done.stderr
    assert done.status == 2
