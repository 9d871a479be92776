# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""All of out/ in new checkouts: from the local cache, and by a new user with nothing, from a registry on loopback.

Each is `./doit artifacts:production` in a process of its own, start-up included; downloads of the packages of the small
tree on which the output folder is checked are at hand, as a mirror on the disk. Bytes are counted between the client
and the registry. `python -m tests.bench.builds.remote TASK…` does the same with other tasks, and prints the numbers.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import report
from tests.bench.report import Part, Row, seconds
from tests.loopback import Relay, to
from tests.publish.kit import Server, empty
from tests.publish.people import write_key
from tools.attack.base.host_tools import HostTools
from tools.pipeline.base import ambient, checkout_copy, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import graph
from tools.pipeline.engine.step import closure
from tools.pipeline.tasks.project import Project

_GOAL = 25.0  # seconds, of the issue
_NAME = "team/cache"
_TASKS = ("artifacts:production",)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A build: seconds of the clock and of the CPU, and bytes from and to the registry."""

    wall: float
    cpu: float
    down: int = 0
    up: int = 0


def measure(project: Project, tasks: Sequence[str] = _TASKS) -> Part:
    """The three ways, and what they cost."""
    folder = empty(report.folder(project) / "remote")
    program = HostTools(folder=folder).wrapper("docker-registry", project.trees.ensure("publish"))
    write_key(folder, "ci")
    server = Server(program=program, folder=folder / "registry").start()
    try:
        runs = _runs(project, folder, server, tasks)
    finally:
        server.kill()
        empty(folder)
    made = sum(step.seconds or 0.0 for step in _rows(project, tasks))
    return Part(rows=_table(runs, made), data={**{name: asdict(run) for name, run in runs.items()}, "steps": made})


def _runs(project: Project, folder: Path, server: Server, tasks: Sequence[str]) -> dict[str, Run]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("SEV_ARTIFACTS_REMOTE")}
    listing = f'[builders.ci]\nkey = "{folder}/ci.pub"\n'
    (folder / "takes.toml").write_text(listing)
    (folder / "sends.toml").write_text(f'{listing}[push]\nkey = "{folder}/ci.key"\n')

    def build(name: str, more: dict[str, str], *, remote: str = "") -> Run:
        checkout = checkout_copy.make(project.root, folder / name)
        environment = {**mine, **more, "PYTHONDONTWRITEBYTECODE": "1"}
        with Relay(to(server.port)) as between:
            if remote:
                environment |= {
                    "SEV_ARTIFACTS_REMOTE": f"http://{between.host}/{_NAME}",
                    "SEV_ARTIFACTS_REMOTE_CONFIG": f"{folder}/{remote}.toml",
                }
            run = _timed(lambda: _doit(checkout, environment, tasks, folder / f"{name}.log"))
        report.say(f"{name}: {seconds(run.wall)}")
        return Run(wall=run.wall, cpu=run.cpu, down=between.down, up=between.up)

    nobody = {
        "SEV_ARTIFACTS_CACHE": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
        "SEV_ARTIFACTS_MIRROR": f"bundle={project.cas.root.as_uri()}",
    }
    found = {"warm local": build("warm-local", {})}
    found["filled"] = build("filled", {}, remote="sends")
    found["filled again"] = build("filled-again", {}, remote="sends")
    found["warm registry"] = build("warm-registry", nobody, remote="takes")
    found["after that"] = build("after-that", nobody, remote="takes")
    return found


def _timed(work: Callable[[], None]) -> Run:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, began = cpu(), ambient.monotonic()
    work()
    return Run(wall=ambient.monotonic() - began, cpu=cpu() - before)


def _doit(checkout: Path, environment: dict[str, str], tasks: Sequence[str], log: Path) -> None:
    with log.open("wb") as output:
        argv = [sys.executable, "-m", "tools.pipeline.front", *tasks]
        done = subprocess.run(
            argv, cwd=checkout, env=environment, check=False,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    if done.returncode:
        ui.lines(log.read_text(errors="replace").splitlines()[-10:])
        raise BuildError(f"ended with status {done.returncode}", where=" ".join(argv))


def _rows(project: Project, tasks: Sequence[str]) -> list[graph.Row]:
    wanted = {step.name: step for step in project.plan.steps}
    if tasks == _TASKS:
        return graph.rows(project.engine, project.plan.deliverable(project.recipes.profile("production")).steps)
    return graph.rows(project.engine, closure(*(wanted[name] for name in tasks)))


def _table(runs: dict[str, Run], made: float) -> tuple[Row, ...]:
    def row(what: str, run: Run, *, goal: float | None = None) -> Row:
        wire = f", {ui.size(run.down)} down, {ui.size(run.up)} up" if run.down + run.up else ""
        return Row(
            what=f"all of out/, {what}",
            measured=f"{seconds(run.wall)}, CPU {seconds(run.cpu)}{wire}",
            goal="none" if goal is None else f"≤ {goal:.0f} s",
            met=None if goal is None else run.wall <= goal,
        )

    return (
        Row(what="all of out/, cold: sum of the times that its steps ran, when they did", measured=ui.duration(made)),
        row("new checkout, warm local cache", runs["warm local"]),
        row("the same, and everything sent to an empty registry", runs["filled"]),
        row("the same once more: all of it is there", runs["filled again"]),
        row("new user with nothing, warm registry on loopback", runs["warm registry"], goal=_GOAL),
        row("his next checkout", runs["after that"]),
    )  # fmt: skip


if __name__ == "__main__":
    part = measure(Project.load(), sys.argv[1:] or _TASKS)
    report.show(part)
    print(json.dumps(part.data, indent=1))
