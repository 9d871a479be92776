# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A build step as pure data: constructing one reads nothing and runs nothing.

    Blob (a pin) ─────────┐
    CheckoutFile ─────────┤
    Literal ──────────────┼── inputs ─┐
    Output of a Step ─────┘           ├── Step ── outputs (regular files below /out)
    argv, environment, tool tree ─────┘

What a step depends on is all here; key.py makes its key of it, executor.py runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A file whose bytes a lock fixes. `size` is in bytes; `where` names the pin in errors."""

    sha256: str
    size: int
    where: str


@dataclass(frozen=True, kw_only=True)
class CheckoutFile:
    """A file of the checkout, by its path from the checkout's root."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Literal:
    """Bytes that are worked out while the graph is made."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output of another step."""

    step: "Step"
    name: str


Reference = Blob | CheckoutFile | Literal | Output

Check = Callable[[Mapping[str, Path]], None]
"""A pure function of a step's outputs (name → file); raises SevArtifactsError when they are not as they must be."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One program run in the sandbox.

    `name` is unique in a build and names the step's log and result. `inputs` maps absolute paths inside to what
    lies there; `tools` is the name of the tool tree that is the root. `parallel` says that the program takes
    part in make's job server. `checks` are no part of the key: they look at outputs and change none.
    `mistakes` says that exit status 2 means a mistake in an input, told in the last line of the log.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    tools: str
    inputs: Mapping[str, Reference]
    outputs: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    parallel: bool = False
    mistakes: bool = False
    checks: tuple[Check, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what could not be laid out inside."""
        for path in self.inputs:
            if not path.startswith("/") or any(part in {"", ".", ".."} for part in path[1:].split("/")):
                raise ValueError(f"{self.name}: input {path!r} is no plain absolute path")
        for name in self.outputs:
            if not name or "/" in name or name.startswith("."):
                raise ValueError(f"{self.name}: output {name!r} is no plain file name")

    def output(self, name: str) -> Output:
        """One of the outputs, as an input of another step."""
        if name not in self.outputs:
            raise ValueError(f"{self.name} has no output {name!r}")
        return Output(step=self, name=name)

    @property
    def needs(self) -> tuple["Step", ...]:
        """The steps whose outputs are inputs, each once, in the order of the inputs' paths."""
        found = {r.step.name: r.step for _, r in sorted(self.inputs.items()) if isinstance(r, Output)}
        return tuple(found.values())


def closure(*steps: Step) -> tuple[Step, ...]:
    """The steps and all that they need, each once, needed ones first."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.name not in found:
            for needed in step.needs:
                visit(needed)
            found[step.name] = step
        elif found[step.name] is not step and found[step.name] != step:
            raise ValueError(f"two different steps are called {step.name}")

    for step in steps:
        visit(step)
    return tuple(found.values())
