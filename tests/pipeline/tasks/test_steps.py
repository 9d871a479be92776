# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Steps as doit tasks, in real runs of small graphs: side by side, interrupted, killed, failed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.front.front_kit import finish, until
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project

REPOSITORY = Path(__file__).resolve().parents[3]

# What a step does: says that it runs, then waits for leave; both in its own folder, where a test can look.
WAIT = "touch started; while [ ! -e go ]; do sleep 0.05; done; "

DODO = """
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from types import SimpleNamespace
from tools.pipeline.engine.store import seal
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.jobs import Jobs
from tools.pipeline.engine.memory import Memory
from tools.pipeline.engine.store.results import Results
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks import doit_glue, guest

HERE = Path({folder!r})
TOOLS = Tree(path=Path({tree!r}), digest={digest!r})
ENGINE = Engine(
    root=HERE, build=HERE / "build", cas=Cas(root=HERE / "cache"),
    results=Results(root=HERE / "cache/results", seal=seal.load(HERE / "state")), jobs=Jobs(2),
    find_tools=lambda name: TOOLS, check_tools=lambda name: TOOLS,
    # On disk, where the tests look for what a step has done.
    memory=Memory(available=lambda: 0),
)
DOIT_CONFIG = {{**doit_glue.config(HERE / "build", default="all"), "num_process": 2}}

def shell(name, script, **inputs):
    paths = {{f"/inputs/{{key}}": step.output("out") for key, step in inputs.items()}}
    return Step(name=name, title=f"the {{name}}", argv=("/bin/sh", "-euc", script), tools="python", inputs=paths,
                outputs=("out",))

{steps}

def task__locks():
    return {{"basename": "_locks", "actions": [lambda: True]}}

def task_toolchain():
    yield {{"name": "python", "actions": []}}

def task_steps():
    for step in STEPS:
        yield guest.task(ENGINE, step, first="_locks")

def task_all():
    return {{"actions": None, "task_dep": [step.name for step in STEPS]}}

def task_kernel_whole():
    plan = SimpleNamespace(whole_kernels=globals().get("WHOLE", {{}}))
    yield from guest.whole_kernels(SimpleNamespace(engine=ENGINE, plan=plan))
"""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A folder with a dodo.py, a cache and a seal of its own."""

    folder: Path

    @contextmanager
    def start(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """A run, which does not outlive a test that failed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.pipeline.front", *words],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *words: str) -> tuple[int, str, str]:
        with self.start(*words) as process:
            done = finish(process)
        return done.status, done.out, done.err

    def rooms(self, *names: str) -> list[Path]:
        """The working folders of steps that run now, once all of them have said that they do."""
        found: list[Path] = []

        def all_there() -> bool:
            found[:] = [
                path.parent for name in names for path in self.folder.glob(f"build/scratch/{name}-*/build/started")
            ]
            return len(found) == len(names)

        until(all_there)
        return found

    def outputs(self) -> dict[str, str]:
        """What this checkout has taken: name of the step → bytes of its output."""
        records = sorted(self.folder.glob("build/results/*.json"))
        return {path.stem: (path.with_suffix("") / "out").read_text() for path in records}

    def result(self, name: str) -> bytes:
        return (self.folder / f"build/results/{name}.json").read_bytes()


@pytest.fixture
def tree(project: Project) -> Tree:
    return project.trees.ensure("python")


def graph(folder: Path, tree: Tree, lines: Sequence[str]) -> Graph:
    text = DODO.format(
        repository=str(REPOSITORY), folder=str(folder), tree=str(tree.path), digest=tree.digest, steps="\n".join(lines)
    )
    (folder / "dodo.py").write_text(text)
    return Graph(folder=folder)


PAIR = [
    f"a = shell('a', '{WAIT} echo A >/out/out')",
    f"b = shell('b', '{WAIT} echo B >/out/out')",
    "c = shell('c', 'cat /inputs/a /inputs/b >/out/out', a=a, b=b)",
    "STEPS = [a, b, c]",
]


def go(rooms: Sequence[Path]) -> None:
    for room in rooms:
        (room / "go").touch()


def test_independent_steps_run_at_the_same_time(tmp_path: Path, tree: Tree) -> None:
    """Neither ends before the other has begun; what needs both comes after them; then there is nothing to do."""
    made = graph(tmp_path, tree, PAIR)
    with made.start() as process:
        go(made.rooms("a", "b"))
        done = finish(process)
    assert done.status == 0, done.err
    assert made.outputs() == {"a": "A\n", "b": "B\n", "c": "A\nB\n"}
    assert made.run()[1].endswith("\nnothing to do, everything is up to date\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_had_ended_is_kept_and_nothing_runs_on(tmp_path: Path, tree: Tree, number: signal.Signals) -> None:
    made = graph(tmp_path, tree, PAIR)
    with made.start() as process:
        first, second = made.rooms("a", "b")
        go([first])
        until((tmp_path / "build/results/a.json").exists)
        process.send_signal(number)
        done = finish(process)
    assert done.status == -number
    assert "Traceback" not in done.err
    assert made.outputs() == {"a": "A\n"}
    assert second.exists() == (number == signal.SIGKILL), "only who is killed cleans nothing up"
    with made.start() as process:
        until(lambda: not second.exists())
        go(made.rooms("b"))
        done = finish(process)
    assert done.status == 0, done.err
    assert "started      a\n" not in done.out
    assert made.outputs() == {"a": "A\n", "b": "B\n", "c": "A\nB\n"}


def test_a_failure_leaves_the_others_whole(tmp_path: Path, tree: Tree) -> None:
    """What runs beside it comes to its end, what needs it does not begin; the next run makes the rest only."""
    lines = [line.replace("echo B >/out/out", "exit 3") for line in PAIR]
    made = graph(tmp_path, tree, lines)
    with made.start() as process:
        first, second = made.rooms("a", "b")
        go([second])
        until(lambda: not second.exists())
        go([first])
        done = finish(process)
    assert done.status == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: b: the b: the step ended with status 3; whole log: ")
    assert made.outputs() == {"a": "A\n"}
    made = graph(tmp_path, tree, PAIR)
    with made.start() as process:
        go(made.rooms("b"))
        done = finish(process)
    assert done.status == 0, done.err
    assert "started      a\n" not in done.out


WHOLE = [
    "linked = shell('kernel-x', 'echo kernel >/out/out')",
    "whole = shell('kernel-x-whole', 'printf \"kernel\\\\n\" >/out/out')",
    "user = shell('user', 'cat /inputs/k >/out/out', k=linked)",
    "STEPS = [linked, user]",
    "WHOLE = {'x': (linked, whole)}",
]


def test_kernel_whole_writes_no_other_steps_record(tmp_path: Path, tree: Tree) -> None:
    """Today's fault: afterwards the manifest of the built-in profile named the step that was only compared with."""
    made = graph(tmp_path, tree, WHOLE)
    assert made.run()[0] == 0
    before = {name: made.result(name) for name in ("kernel-x", "user")}
    status, _, err = made.run("kernel_whole:x")
    assert status == 0, err
    assert "kernel-x: linked and compiled whole are the same bytes, " in err
    assert {name: made.result(name) for name in before} == before
    assert json.loads(made.result("kernel-x-whole"))["key"] != json.loads(before["kernel-x"])["key"]
    assert made.run()[1].endswith("\nnothing to do, everything is up to date\n")


def test_kernel_whole_fails_when_the_bytes_differ(tmp_path: Path, tree: Tree) -> None:
    made = graph(tmp_path, tree, [line.replace("echo kernel", "echo Kernel") for line in WHOLE])
    status, _, err = made.run("kernel_whole:x")
    assert status == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: kernel_whole:x: the kernel-x: out differs from the kernel that was compiled whole")
    assert made.outputs() == {"kernel-x": "Kernel\n", "kernel-x-whole": "kernel\n"}


def test_the_shipped_pairs_differ_in_the_objects_alone(project: Project) -> None:
    """Of one configuration, source and archive, with one environment: only the way there is another."""
    assert project.plan.whole_kernels
    for linked, whole in project.plan.whole_kernels.values():
        assert {path for path in linked.inputs if path not in whole.inputs} == {"/inputs/objects.tar.zst"}
        assert {path: linked.inputs[path] for path in whole.inputs} == whole.inputs
        assert (whole.environment, whole.tools, whole.outputs) == (linked.environment, linked.tools, linked.outputs)
        assert whole.name != linked.name
