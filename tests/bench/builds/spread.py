# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Many workers and many variants, by simulation: step times and sizes are measured ones, the network is assumed.

    steps of one profile ── own: from the kernel's configuration on ── once for each variant
                         └─ shared: all others ── once

A worker runs one step at a time, with all of its processors. It takes the ready step that has the longest chain behind
it; a step that others have claimed is theirs. Inputs that it has not come through its link and the registry's, which
all share: first come, first served. Outputs are sent while the next step runs, over the same two. Whoever has made what
a step takes may begin it at once, others only when that lies in the registry.
"""

import heapq
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import report
from tests.bench.report import Part, Row
from tools.pipeline.base import ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.step import Output, Step, closure
from tools.pipeline.engine.store.results import Result
from tools.pipeline.tasks.project import Project

WORKERS, VARIANTS = (1, 4, 16, 64), (10, 100, 1000)
_OWN = "kernel-config-"  # what the steps are called from which on a variant has its own


@dataclass(frozen=True, kw_only=True)
class Network:
    """Bytes per second of a worker's link and of the registry's; seconds that a step's requests take."""

    link: float = 125e6  # 1 Gbit/s
    registry: float = 1.25e9  # 10 Gbit/s
    latency: float = 0.5  # a look, a claim and its moment, a record: tools/pipeline/remote/claims.py


@dataclass(frozen=True, kw_only=True)
class Item:
    """A step: seconds that it runs, bytes of its outputs, bytes that it takes by the step that they are from."""

    name: str
    seconds: float
    size: int = 0
    needs: Mapping[str, int] = field(default_factory=dict)
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Seconds until all is made, seconds that steps ran on all workers together, bytes through the registry."""

    makespan: float
    work: float
    moved: int


def matrix(items: Sequence[Item], variants: int) -> list[Item]:
    """The steps of so many variants, needed ones first; shared ones once."""
    own = {item.name for item in items if item.own}
    found = [item for item in items if not item.own]
    for number in range(variants):
        for item in items:
            if item.own:
                needs = {f"{name}#{number}" if name in own else name: size for name, size in item.needs.items()}
                name = f"{item.name}#{number}"
                found.append(Item(name=name, seconds=item.seconds, size=item.size, needs=needs, own=True))
    return found


def chains(items: Sequence[Item]) -> dict[str, float]:
    """For each step the seconds of the longest chain that begins with it; needed ones are first in `items`."""
    behind = dict.fromkeys((item.name for item in items), 0.0)
    for item in reversed(items):
        behind[item.name] += item.seconds
        for name in item.needs:
            behind[name] = max(behind[name], behind[item.name])
    return behind


class _Line:
    """What moves bytes one after the other."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free = rate, 0.0

    def through(self, size: int, since: float) -> float:
        """When they have passed."""
        self._free = max(self._free, since) + size / self._rate
        return self._free


class _Run:
    """One simulation: a heap of times at which something may begin."""

    def __init__(self, items: Sequence[Item], workers: int, network: Network) -> None:
        self._network = network
        self._items = {item.name: item for item in items}
        self._behind = chains(items)
        self._waits = {item.name: len(item.needs) for item in items}
        self._wanted_by: dict[str, list[str]] = {item.name: [] for item in items}
        for item in items:
            for name in item.needs:
                self._wanted_by[name].append(item.name)
        self._registry = _Line(network.registry)
        self._down = [_Line(network.link) for _ in range(workers)]
        self._up = [_Line(network.link) for _ in range(workers)]
        self._has: list[set[str]] = [set() for _ in range(workers)]
        self._maker: dict[str, int] = {}
        self._there: dict[str, float] = {}
        self._idle = set(range(workers))
        self._ready: list[tuple[float, str]] = []
        self._events: list[tuple[float, str, int]] = []  # when, the step that ends or nothing, its worker
        self._moved, self._end = 0, 0.0

    def outcome(self) -> Outcome:
        for name, count in self._waits.items():
            if not count:
                heapq.heappush(self._ready, (-self._behind[name], name))
        self._begin(0.0)
        while self._events:
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                _, name, worker = heapq.heappop(self._events)
                if name:
                    self._ends(name, worker, now)
            self._begin(now)
        assert len(self._maker) == len(self._items), "a step is missing"
        return Outcome(makespan=self._end, work=sum(one.seconds for one in self._items.values()), moved=self._moved)

    def _ends(self, name: str, worker: int, now: float) -> None:
        self._idle.add(worker)
        self._has[worker].add(name)
        self._maker[name] = worker
        self._end = max(self._end, now)
        item = self._items[name]
        sent = max(self._up[worker].through(item.size, now), self._registry.through(item.size, now))
        self._moved += item.size
        self._there[name] = sent
        heapq.heappush(self._events, (sent, "", 0))
        for next_one in self._wanted_by[name]:
            self._waits[next_one] -= 1
            if not self._waits[next_one]:
                heapq.heappush(self._ready, (-self._behind[next_one], next_one))

    def _begin(self, now: float) -> None:
        later = []
        while self._idle and self._ready:
            first = heapq.heappop(self._ready)
            worker = self._worker(self._items[first[1]], now)
            if worker is None:
                later.append(first)
                continue
            self._idle.remove(worker)
            self._start(self._items[first[1]], worker, now)
        for one in later:
            heapq.heappush(self._ready, one)

    def _worker(self, item: Item, now: float) -> int | None:
        """Who begins it: whoever has most of its inputs, the first of them; None while they are on their way."""
        missing = [name for name in item.needs if self._there[name] > now]
        makers = {self._maker[name] for name in missing}
        able = self._idle if not missing else (self._idle & makers if len(makers) == 1 else set())
        if not able:
            return None
        return min(able, key=lambda worker: (self._bytes(item, worker), worker))

    def _bytes(self, item: Item, worker: int) -> int:
        return sum(size for name, size in item.needs.items() if name not in self._has[worker])

    def _start(self, item: Item, worker: int, now: float) -> None:
        size = self._bytes(item, worker)
        came = now
        if size:
            came = max(self._down[worker].through(size, now), self._registry.through(size, now))
            self._moved += size
        self._has[worker].update(item.needs)
        heapq.heappush(self._events, (came + self._network.latency + item.seconds, item.name, worker))


def simulate(items: Sequence[Item], workers: int, network: Network) -> Outcome:
    """So many workers make all of `items`, which has needed ones first. The same for the same arguments."""
    return _Run(items, workers, network).outcome()


def measured(project: Project, records: Path | None = None) -> list[Item]:
    """The steps of the production profile with the times that they took here; UserError where one has none.

    `records`: build/results of another checkout that uses the same cache, whose steps of the same names are taken.
    """
    found: list[Item] = []
    own: set[str] = set()
    for step in closure(*project.plan.deliverable(project.recipes.profile("production")).steps):
        result = _result(project, step, records)
        if result is None:
            raise UserError("has not been built here", where=step.name, hint="./doit build_all")
        needs: dict[str, int] = {}
        for reference in step.inputs.values():
            if isinstance(reference, Output):
                taken = _result(project, reference.step, records)
                assert taken is not None
                name = reference.step.name
                needs[name] = needs.get(name, 0) + taken.outputs[reference.name].digest.size
        if step.name.startswith(_OWN) or own & set(needs):
            own.add(step.name)
        size = sum(node.digest.size for node in result.outputs.values())
        found.append(Item(name=step.name, seconds=result.seconds, size=size, needs=needs, own=step.name in own))
    return found


def _result(project: Project, step: Step, records: Path | None) -> Result | None:
    """What the cache has for it, or what a checkout has last taken for a step of that name."""
    found = project.engine.find(step) if records is None else None
    try:
        path = (records or project.build / "results") / f"{step.name}.json"
        return found or project.engine.results.read(str(json.loads(path.read_bytes())["key"]))
    except (OSError, ValueError, LookupError, TypeError):
        return found


def measure(project: Project) -> Part:
    """The table: each matrix with each number of workers."""
    return table(measured(project), Network())


def table(items: Sequence[Item], network: Network) -> Part:
    """Rows for people, and all that was simulated."""
    rows, data = [], []
    for variants in VARIANTS:
        steps = matrix(items, variants)
        longest, alone = max(chains(steps).values()), 0.0
        words = []
        for workers in WORKERS:
            found = simulate(steps, workers, network)
            alone = alone or found.makespan
            speed = alone / found.makespan
            words.append(f"{workers}: {hours(found.makespan)} (×{speed:.1f}, {speed / workers:.0%})")
            data.append(
                {"variants": variants, "workers": workers, **asdict(found), "speed": round(speed, 2),
                 "efficiency": round(speed / workers, 3), "longest": longest}
            )  # fmt: skip
        what = f"simulated: {variants:,} variants on 1, 4, 16, 64 workers (speed-up, efficiency)"
        rows.append(Row(what=what, measured="; ".join(words), beside=f"longest chain {hours(longest)}"))
        report.say(rows[-1].measured)
    return Part(rows=tuple(rows), data={"network": asdict(network), "steps": [asdict(one) for one in items],
                                        "simulated": data})  # fmt: skip


def hours(seconds: float) -> str:
    """1.25 h, 10.0 h."""
    value = seconds / 3600
    return f"{value:.2f} h" if value < 10 else f"{value:,.1f} h"


if __name__ == "__main__":
    part = table(measured(Project.load(), Path(sys.argv[1]) if sys.argv[1:] else None), Network())
    ui.result(json.dumps(part.data, indent=1) + "\n", sys.stdout)
