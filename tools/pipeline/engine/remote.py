# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the engine wants of others: results that they have, bytes of them, and somebody to tell what was made here.

    key ── find() ── a verified result, by its digests ── bring() ── bytes of an output, when somebody needs them
    what ran here ── offer()
    what is not there ── execute() ── run elsewhere, or not

Whoever stands behind it verifies: what is handed to the engine is believed. Nothing raises but BaseException of a stop
and Different, and nothing keeps a step waiting for longer than it would take to run it: a remote that is down, slow,
full or lying costs a note, never the build. The rooms above implement it; the engine knows no registry and no service.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.merkle import File
from tools.pipeline.engine.store.origin import Origin
from tools.pipeline.engine.store.results import Result

STEP, TREE = "step", "tree"
"""Kinds of results: of a step, and of setting up a tool tree, whose one output ROOT is the tree's digest."""
ROOT = "root"


class Different(BuildError):  # noqa: N818 (what came of it)
    """What ran here gave other bytes than somebody says. No build goes on after that."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A result that is looked for: its kind and key, the names of its outputs, and what people call it.

    `seconds`: how long it took the last time that this checkout knows of; None when it knows of none.
    """

    kind: str
    key: str
    outputs: tuple[str, ...]
    name: str
    title: str
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A step to be run elsewhere.

    `tools` is its tool tree's digest, and `tree` gives its folder, set up and checked; `inputs` says what lies at each
    inside path, and `copy(path, target)` makes a private, verified copy of it.
    """

    wanted: Wanted
    step: Step
    tools: str
    inputs: Mapping[str, File]
    tree: Callable[[], Path]
    copy: Callable[[str, Path], None]


class Remote(Protocol):
    """Others' results. All methods may be called from several threads at once."""

    @property
    def share(self) -> float:
        """Of the steps that were executed there, how many run here, too, before any of them counts: 0 to 1."""

    def believes(self, origin: Origin) -> bool:
        """Whether a result of that origin, which was verified once, still counts: keys that were listed may go."""

    def said(self, origin: Origin) -> str:
        """Where a result comes from and who vouches for it, for people."""

    def find(self, wanted: Wanted) -> Result | None:
        """A verified result with exactly the wanted outputs; its bytes need not have come yet."""

    def bring(self, result: Result, name: str) -> bool:
        """Bring the bytes of an output into the local store, verified; False when that cannot be."""

    def offer(self, wanted: Wanted, result: Result) -> None:
        """Tell others what was made here. Returns at once; what is sent is sent beside the build."""

    def execute(self, work: Work) -> Result | None:
        """Run the step elsewhere; None when it is to be run here."""

    def end(self) -> None:
        """The build is over: wait for what is still being sent, not for ever, and say what came and went."""
