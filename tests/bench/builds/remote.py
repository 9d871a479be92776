# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""All of out/ in new checkouts: from the local cache; by new users with nothing, from a registry and from a service of
the Remote Execution API on loopback; executed by that service.

Each is `./doit artifacts:production` in a process of its own, start-up included; downloads of packages and sources are
at hand, as a mirror on the disk. Bytes are counted between the client and the server. What the service itself takes is
in the clock and not in the CPU time: it is another's machine. `python -m tests.bench.builds.remote TASK…` does the
same with other tasks, and prints the numbers.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import report
from tests.bench.report import Part, Row, seconds
from tests.loopback import Relay, to
from tests.pipeline.remote.reapi.kit import Casd
from tests.publish.kit import Server, empty
from tests.publish.people import write_key
from tools.attack.base.host_tools import HostTools
from tools.pipeline.base import ambient, checkout_copy, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import graph
from tools.pipeline.engine.step import closure
from tools.pipeline.tasks.project import Project

_GOAL = 25.0  # seconds, of the issue
_TASKS = ("artifacts:production",)
_SMALL = ("agent",)  # a step on the largest tool tree that is soon over
_QUOTA = "40G"  # of the service: all tool trees, and what the steps take and give


@dataclass(frozen=True, kw_only=True)
class Run:
    """A build: seconds of the clock and of the CPU, and bytes from and to the server."""

    wall: float
    cpu: float
    down: int = 0
    up: int = 0


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A place that is shared: its port on loopback, and how its name begins and ends."""

    name: str
    port: int
    scheme: str
    path: str = ""

    def at(self, host: str) -> str:
        """Its name for a client that reaches it there."""
        return f"{self.scheme}://{host}{self.path}"


def measure(project: Project, tasks: Sequence[str] = _TASKS) -> Part:
    """The ways, and what they cost."""
    builds = Builds(project, empty(report.folder(project) / "remote"))
    try:
        runs = {"warm local": builds.run("warm-local", tasks)}
        with _registry(project, builds.folder) as registry:
            runs |= builds.shared(registry, tasks)
        with _service(builds.folder / "service") as service:
            runs |= builds.shared(service, tasks)
        # One that has been told nothing yet.
        with _service(builds.folder / "executes") as service:
            runs |= builds.executed(service, tasks)
    finally:
        empty(builds.folder)
    made = sum(step.seconds or 0.0 for step in _rows(project, tasks))
    return Part(rows=_table(runs, made), data={**{name: asdict(run) for name, run in runs.items()}, "steps": made})


@contextmanager
def _registry(project: Project, folder: Path) -> Iterator[Shared]:
    program = HostTools(folder=folder).wrapper("docker-registry", project.trees.ensure("publish"))
    server = Server(program=program, folder=folder / "registry").start()
    try:
        yield Shared(name="registry", port=server.port, scheme="http", path="/team/cache")
    finally:
        server.kill()


@contextmanager
def _service(folder: Path) -> Iterator[Shared]:
    casd = Casd(folder=folder, quota=_QUOTA).start()
    try:
        yield Shared(name="service", port=casd.port, scheme="grpc")
    finally:
        casd.kill()


class Builds:
    """Runs of ./doit in copies of the checkout in `folder`, each beside caches of one user or another."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project, self.folder = project, folder
        self._mine = {name: value for name, value in os.environ.items() if not name.startswith(ambient.REMOTE)}
        write_key(folder, "ci")
        listing = f'[builders.ci]\nkey = "{folder}/ci.pub"\n'
        (folder / "takes.toml").write_text(listing)
        (folder / "sends.toml").write_text(f'{listing}[push]\nkey = "{folder}/ci.key"\n')

    def shared(self, place: Shared, tasks: Sequence[str]) -> dict[str, Run]:
        """Sent by one who has everything, twice; taken by one who has nothing, twice."""
        name = place.name
        return {
            f"{name} filled": self.run(f"{name}-filled", tasks, place=place, listing="sends"),
            f"{name} filled again": self.run(f"{name}-filled-again", tasks, place=place, listing="sends"),
            f"{name} warm": self.run(f"{name}-warm", tasks, user=name, place=place, listing="takes"),
            f"{name} after that": self.run(f"{name}-after-that", tasks, user=name, place=place, listing="takes"),
        }

    def executed(self, place: Shared, tasks: Sequence[str]) -> dict[str, Run]:
        """A small step of two users, one after the other, and all of the tasks by the second one."""
        runs = {
            "small executed": self.run("executed-small", _SMALL, user="alice", place=place),
            "small executed again": self.run("executed-again", _SMALL, user="bob", place=place),
        }
        for name in ("executed-small", "executed-again"):
            log = self.folder / f"{name}.log"
            if f"{_SMALL[0]}: executed at" not in log.read_text(errors="replace"):
                raise BuildError(f"{_SMALL[0]} did not run at the service", where=str(log))
        return {**runs, "executed": self.run("executed", tasks, user="bob", place=place)}

    def run(
        self, name: str, tasks: Sequence[str], *, user: str = "", place: Shared | None = None, listing: str = ""
    ) -> Run:
        """One build in a new checkout. `user`: whose caches, ours if nobody is named; without a `listing` of builders
        the place executes.
        """
        checkout = checkout_copy.make(self._project.root, self.folder / name)
        environment = {**self._mine, "PYTHONDONTWRITEBYTECODE": "1"}
        if user:
            environment |= {
                "SEV_ARTIFACTS_CACHE": str(self.folder / user / "cache"),
                "XDG_STATE_HOME": str(self.folder / user / "state"),
                "SEV_ARTIFACTS_MIRROR": f"bundle={self._project.cas.root.as_uri()}",
            }
        log = self.folder / f"{name}.log"
        if place is None:
            run = _timed(lambda: _doit(checkout, environment, tasks, log))
        else:
            with Relay(to(place.port)) as between:
                environment[ambient.REMOTE] = place.at(between.host)
                if listing:
                    environment[ambient.REMOTE_CONFIG] = f"{self.folder}/{listing}.toml"
                else:
                    environment[ambient.REMOTE_EXECUTE] = "1"
                timed = _timed(lambda: _doit(checkout, environment, tasks, log))
            run = Run(wall=timed.wall, cpu=timed.cpu, down=between.down, up=between.up)
        report.say(f"{name}: {seconds(run.wall)}")
        return run


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
            what=what,
            measured=f"{seconds(run.wall)}, CPU {seconds(run.cpu)}{wire}",
            goal="none" if goal is None else f"≤ {goal:.0f} s",
            met=None if goal is None else run.wall <= goal,
        )

    def shared(name: str, words: str) -> tuple[Row, ...]:
        return (
            row(f"the same, and everything sent to an empty {words}", runs[f"{name} filled"]),
            row("the same once more: all of it is there", runs[f"{name} filled again"]),
            row(f"all of out/, new user with nothing, warm {words}", runs[f"{name} warm"], goal=_GOAL),
            row("his next checkout", runs[f"{name} after that"]),
        )

    small, again = runs["small executed"], runs["small executed again"]
    return (
        Row(what="all of out/, cold: sum of the times that its steps ran, when they did", measured=ui.duration(made)),
        row("all of out/, new checkout, warm local cache", runs["warm local"]),
        *shared("registry", "registry on loopback"),
        *shared("service", "service (buildbox-casd) on loopback"),
        row(f"`{_SMALL[0]}` executed by the service, which gets the tool tree", small),
        row("the same of another user with nothing: the tree is there", again),
        row("all of out/ executed by the service, a share of it here, too", runs["executed"]),
    )


if __name__ == "__main__":
    part = measure(Project.load(), sys.argv[1:] or _TASKS)
    report.show(part)
    print(json.dumps(part.data, indent=1))
