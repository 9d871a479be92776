# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What doit does with our actions, seen from outside: real doit runs of a small dodo.py."""

import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from doit.cmd_base import ModuleTaskLoader

from tools.pipeline.front import main

DODO = """
from pathlib import Path
from tools.pipeline.tasks import doit_glue
from tools.pipeline.base.errors import BuildError, UserError

HERE = Path(__file__).parent
(HERE / "build").mkdir(exist_ok=True)
DOIT_CONFIG = doit_glue.config(HERE / "build", default="copy")


def copy():
    with (HERE / "runs").open("a") as file:
        file.write("x")
    (HERE / "out").write_bytes((HERE / "in").read_bytes())


def raises(error):
    def work():
        raise error
    return work


def task_copy():
    return {
        "actions": [doit_glue.action(copy)],
        "file_dep": [HERE / "in"],
        "targets": [HERE / "out"],
        "clean": doit_glue.remove(HERE / "out", HERE / "folder", HERE / "never-made"),
    }


def task_user():
    return {"actions": [doit_glue.action(raises(UserError("bad\\nkey", where="f.toml: k", hint="fix it")))]}


def task_build():
    return {"actions": [doit_glue.action(raises(BuildError("broke", where="kernel")))]}


def task_full():
    return {"actions": [doit_glue.action(raises(OSError(28, "No space left on device", "/x/y")))]}


def task_bug():
    return {"actions": [doit_glue.action(raises(RuntimeError("a bug of ours")))]}


def task_after():
    return {"actions": [doit_glue.action(copy)], "task_dep": ["user"]}
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a doit command ended."""

    returncode: int
    stdout: str
    stderr: str


Doit = Callable[..., Done]


def start(folder: Path, repository: Path, *args: str) -> Done:
    """A real process."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the dodo.py above."""
    (tmp_path / "dodo.py").write_text(DODO)
    (tmp_path / "in").write_text("1")
    return tmp_path


@pytest.fixture
def doit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Doit:
    """doit(*args) there, in this process: starting Python takes longer than all else."""

    def run(*args: str) -> Done:
        err = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "__stderr__", err)
            loader = ModuleTaskLoader(runpy.run_path(str(folder / "dodo.py")))
            status = main.main(args, loader=loader)
        # doit keeps the standard output of the time when it was imported: only a process of its own shows it.
        return Done(returncode=status, stdout="", stderr=err.getvalue())

    return run


FAILURES = {
    "user": (2, "error: user: f.toml: k: bad\\nkey; fix it\n"),
    "build": (1, "error: build: kernel: broke\n"),
    "full": (1, "error: full: No space left on device: /x/y\n"),
    "after": (2, "error: user: f.toml: k: bad\\nkey; fix it\n"),
}


@pytest.mark.parametrize("task", FAILURES)
def test_our_errors_are_one_line_and_a_status(doit: Doit, task: str) -> None:
    done = doit("run", task)
    assert (done.returncode, done.stderr) == FAILURES[task]


@pytest.mark.parametrize("task", ["user", "build"])
def test_the_same_seen_from_outside(folder: Path, repository: Path, task: str) -> None:
    done = start(folder, repository, "run", task)
    assert (done.returncode, done.stderr) == FAILURES[task]
    assert "Traceback" not in done.stdout


def test_a_bug_shows_its_traceback(doit: Doit) -> None:
    done = doit("run", "bug")
    assert "Traceback" in done.stderr
    assert "RuntimeError: a bug of ours" in done.stderr
    assert done.returncode != 0


def test_a_task_whose_dependency_failed_does_not_run(doit: Doit, tmp_path: Path) -> None:
    doit("run", "after")
    assert not (tmp_path / "runs").exists()


def test_runs_once_then_says_that_there_is_nothing_to_do(folder: Path, repository: Path, tmp_path: Path) -> None:
    first, second = start(folder, repository), start(folder, repository)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "up to date" not in first.stdout
    assert "nothing to do, everything is up to date\n" in second.stdout
    assert (tmp_path / "runs").read_text() == "x"
    assert first.stderr == second.stderr == ""


def test_a_lost_target_is_made_again(doit: Doit, tmp_path: Path) -> None:
    doit()
    (tmp_path / "out").unlink()
    doit()
    assert (tmp_path / "runs").read_text() == "xx"


def test_clean_removes_folders_and_tolerates_absence(doit: Doit, tmp_path: Path) -> None:
    doit()
    (tmp_path / "folder/full").mkdir(parents=True)
    done = doit("clean", "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "folder").exists()
    assert (tmp_path / "in").exists()


def test_the_state_and_its_lock_lie_in_the_build_folder(doit: Doit, tmp_path: Path) -> None:
    doit()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["build", "dodo.py", "in", "out", "runs"]
    assert sorted(p.name for p in (tmp_path / "build").iterdir()) == ["doit.db", "doit.db.lock"]


def test_a_bad_recipe_ends_loading_with_its_line(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "dodo.py").write_text(
        "from pathlib import Path\n"
        "from tools.pipeline.tasks import doit_glue\n"
        "from tools.pipeline.tasks.project import Project\n"
        "PROJECT = doit_glue.load_or_exit(lambda: Project.load(Path('nowhere')))\n"
    )
    done = start(tmp_path, repository, "list")
    assert done.stderr == "doit: error: recipes/sources.lock: no such file; is the checkout complete?\n"
    assert (done.stdout, done.returncode) == ("", 2)
