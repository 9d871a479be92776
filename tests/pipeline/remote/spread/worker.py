# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A worker as a process: home, cache, key and network of its own. `python -m …worker ORDER.json`."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.pipeline.engine.workshop import Workshop
from tests.pipeline.remote.kit import TREE_KEY
from tests.pipeline.remote.spread import matrix, network
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.results import Result
from tools.pipeline.engine.tree import Tree
from tools.pipeline.remote import choose, claims
from tools.pipeline.remote.shared import Shared

_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is told. `first` is the step of the list that it begins with; without a `relay` it is alone."""

    name: str
    folder: str
    tree: str
    digest: str
    log: str
    variants: int
    first: int = 0
    burn: float = matrix.BURN
    relay: str = ""
    config: str = ""
    claiming: bool = True
    patience: float = claims.UNKNOWN

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


def main() -> None:
    order = Order(**json.loads(Path(sys.argv[1]).read_text()))
    if order.relay:
        network.isolate()
    tree = Tree(path=Path(order.tree), digest=order.digest)
    engine = Workshop(folder=Path(order.folder), tools=tree).engine()
    engine.cas.root.mkdir(parents=True, exist_ok=True)
    remote = None
    if order.relay:
        host = network.to_path(Path(order.relay))
        place = f"http://{host}/team/cache-{Path(order.log).parent.name.replace('_', '-')}"
        remote = choose.remote(place, cas=engine.cas, folder=Path(order.folder), path=Path(order.config))
        engine.others = Others(remote=remote, tools_key=lambda _: TREE_KEY)
    claims.UNKNOWN = order.patience
    if not order.claiming:
        Shared.execute = lambda *_: None  # type: ignore[method-assign]  # taken away
    _write_a_log(engine, order)
    steps = matrix.steps(order.variants, burn=order.burn)
    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(engine.ensure, (*steps[order.first :], *steps[: order.first])))
    if remote is not None:
        remote.end()
    made: dict[str, Any] = {result.key: result.outputs["out"].digest.sha256 for result in results}
    outputs = {step.name: made[str(engine.key(step))] for step in steps}
    print(json.dumps({"outputs": outputs, "interfaces": network.interfaces()}))


def _write_a_log(engine: Engine, order: Order) -> None:
    """A line when a step begins to run, and one when it has."""
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    run = engine._run

    def logged(step: Step, found: str, tools: Tree) -> Result:
        os.write(log, f"begins {order.name} {step.name}\n".encode())
        result = run(step, found, tools)
        os.write(log, f"ends {order.name} {step.name}\n".encode())
        return result

    engine._run = logged  # type: ignore[method-assign]  # each run is counted


if __name__ == "__main__":
    main()
