# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An engine over an empty cache, on the real python tool tree: what tests of steps run small programs with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.jobs import Jobs
from tools.pipeline.engine.step import Check, Reference, Step
from tools.pipeline.engine.store import seal
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.results import Results
from tools.pipeline.engine.tree import Tree

TREE = "python"


@dataclass(kw_only=True)
class Workshop:
    """A checkout, a cache and a seal of its own; engines over them are new processes, as far as they know."""

    folder: Path
    tools: Tree
    cores: int = 2
    checked: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "checkout"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def engine(self, *, checkout: str = "checkout") -> Engine:
        root = self.folder / checkout
        root.mkdir(parents=True, exist_ok=True)

        def check(name: str) -> Tree:
            self.checked.append(name)
            return self.tools

        return Engine(
            root=root,
            build=root / "build",
            cas=Cas(root=self.cache),
            results=Results(root=self.cache / "results", seal=seal.load(self.folder / "state")),
            jobs=Jobs(self.cores),
            find_tools=lambda name: self.tools if name == TREE else None,
            check_tools=check,
        )


def shell(
    script: str,
    *,
    name: str = "step",
    inputs: Mapping[str, Reference] | None = None,
    outputs: Sequence[str] = ("out",),
    checks: tuple[Check, ...] = (),
    parallel: bool = False,
    mistakes: bool = False,
) -> Step:
    """A step that runs a shell script."""
    return Step(
        name=name,
        title=f"the {name}",
        argv=("/bin/sh", "-euc", script),
        tools=TREE,
        inputs=dict(inputs or {}),
        outputs=tuple(outputs),
        checks=checks,
        parallel=parallel,
        mistakes=mistakes,
    )
