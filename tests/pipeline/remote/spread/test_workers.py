# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Four workers that begin one matrix at the same time: processes with homes, caches, keys and networks of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.pipeline.remote.spread import matrix, network
from tests.pipeline.remote.spread.worker import Order
from tests.publish.kit import Server
from tests.publish.people import write_key
from tools.pipeline.engine.tree import Tree

_NAMES = ("one", "two", "three", "four")
_MOST = 1.15  # of the CPU time of the distinct steps, of the issue
_ENDS = 300  # seconds in which all must have ended; with quiet processors it takes a tenth


@dataclass(kw_only=True)
class Crew:
    """Workers of one test, which list each other."""

    folder: Path
    tree: Tree
    relay: Path
    variants: int = 4
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def lines(self, kind: str) -> list[tuple[str, str]]:
        """(worker, step) of all lines of that kind."""
        words = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [(worker, step) for found, worker, step in words if found == kind]

    def runs(self) -> Counter[str]:
        return Counter(step for _, step in self.lines("begins"))

    def start(self, name: str, *, alone: bool = False, first: int = 0, **more: object) -> None:
        folder = self.folder / name
        folder.mkdir()
        write_config(self.folder, folder / "remote.toml", name)
        order = Order(
            name=name, folder=str(folder), tree=str(self.tree.path), digest=self.tree.digest,
            log=str(folder / "log" if alone else self.log), variants=self.variants, first=first,
            relay="" if alone else str(self.relay), config=str(folder / "remote.toml"), **more,  # type: ignore[arg-type]  # several types
        )  # fmt: skip
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SEV_ARTIFACTS", "XDG"))},
            "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "DOCKER_CONFIG": "/nonexistent",
        }  # fmt: skip
        argv = [sys.executable, "-m", "tests.pipeline.remote.spread.worker", str(order.write(folder / "order.json"))]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.processes[name] = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def outputs(self, name: str, *, isolated: bool = True) -> dict[str, str]:
        """What a worker has when it has ended, by step; it must have had no network but its own loopback."""
        status = self.processes[name].wait(_ENDS)
        assert status == 0, (self.folder / name / "err").read_text()[-3000:]
        found = json.loads((self.folder / name / "out").read_text())
        if isolated:
            # The kernel puts tunnels that do nothing into new networks, where it has modules for them.
            assert not [one for one in found["interfaces"] if one.startswith(("e", "w", "br", "veth", "docker"))]
        outputs: dict[str, str] = found["outputs"]
        return outputs

    def kill(self, name: str) -> None:
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()


def write_config(people: Path, path: Path, name: str) -> None:
    text = "".join(f'[builders.{one}]\nkey = "{people}/{one}.pub"\n' for one in _NAMES)
    path.touch(0o600)
    path.write_text(f'{text}[push]\nkey = "{people}/{name}.key"\n')


@pytest.fixture
def crew(tmp_path: Path, python_tree: Tree, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    # The path of a socket has room for 107 characters.
    relay = tmp_path_factory.mktemp("s") / "s"
    for name in _NAMES:
        write_key(tmp_path, name)
    forwards = network.to_port(relay, server.port)
    made = Crew(folder=tmp_path, tree=python_tree, relay=relay)
    yield made
    for name, process in made.processes.items():
        if process.poll() is None:
            made.kill(name)
    forwards.close()


def _until(met: Callable[[], object]) -> None:
    end = time.monotonic() + _ENDS
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_four_workers_build_nothing_twice(crew: Crew) -> None:
    """All begin at once, each with another variant; what they have is what one of them would have made alone."""
    distinct = [step.name for step in matrix.steps(crew.variants)]
    for number, name in enumerate(_NAMES):
        crew.start(name, first=number * len(distinct) // 4)
    outputs = [crew.outputs(name) for name in _NAMES]
    runs = crew.runs()
    assert sorted(runs) == sorted(distinct)
    assert runs.total() * matrix.BURN <= _MOST * len(distinct) * matrix.BURN, runs
    assert len({worker for worker, _ in crew.lines("begins")}) > 1, "the work is shared"

    crew.start("alone", alone=True, burn=0.0)
    alone = crew.outputs("alone", isolated=False)
    assert all(one == alone for one in outputs)


def test_without_claims_they_run_the_same_steps(crew: Crew) -> None:
    """The control: results are shared as before, and who begins at the same time does the same work."""
    crew.variants = 1
    for name in _NAMES:
        crew.start(name, claiming=False)
    for name in _NAMES:
        crew.outputs(name)
    distinct = len(matrix.steps(crew.variants))
    assert crew.runs().total() > _MOST * distinct, crew.runs()


def test_a_worker_that_is_killed_in_a_step_costs_the_others_a_wait(crew: Crew) -> None:
    """And one more run of what he had begun: one of those who wait takes it over, the others wait for him."""
    crew.variants = 1
    for name in _NAMES:
        crew.start(name, patience=20.0)
    _until(lambda: crew.lines("begins"))
    victim, step = crew.lines("begins")[0]
    crew.kill(victim)
    assert (victim, step) not in crew.lines("ends")
    # He has two threads, and what both had begun is lost.
    lost = Counter(begun for worker, begun in crew.lines("begins") if worker == victim)
    lost -= Counter(ended for worker, ended in crew.lines("ends") if worker == victim)
    assert lost[step] == 1
    outputs = [crew.outputs(name) for name in _NAMES if name != victim]
    assert all(one == outputs[0] for one in outputs)
    distinct = [step.name for step in matrix.steps(crew.variants)]
    assert crew.runs() == Counter(distinct) + lost
    assert {worker for worker, ended in crew.lines("ends") if ended == step} <= set(_NAMES) - {victim}
