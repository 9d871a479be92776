# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the engine takes from others, and what it makes of it; tests/pipeline/remote/ has the others themselves."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.pipeline.engine.test_executor import made
from tests.pipeline.engine.workshop import TREE, Workshop, shell
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import graph
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.others import Others
from tools.pipeline.engine.remote import ROOT, Wanted, Work
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.engine.store.results import Result
from tools.pipeline.engine.tree import Tree

THEIRS = Origin(how=How.CACHE, place="somewhere", builder="somebody")
EXECUTED = replace(THEIRS, how=How.EXECUTED)


@dataclass(kw_only=True)
class Shelf:
    """A remote that is a folder of files and a table of results: what is believed, given and executed is the test's."""

    folder: Path
    results: dict[str, Result] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    brought: list[str] = field(default_factory=list)
    offered: list[tuple[str, str]] = field(default_factory=list)
    believed: bool = True
    share: float = 1.0
    gives: bool = True
    into: Cas | None = None
    seconds: list[float | None] = field(default_factory=list)
    executes: Engine | None = None

    def believes(self, origin: Origin) -> bool:
        return self.believed and origin in {THEIRS, EXECUTED}

    def said(self, origin: Origin) -> str:
        return f"{origin}, by {origin.builder}"

    def find(self, wanted: Wanted) -> Result | None:
        self.asked.append(wanted.name)
        self.seconds.append(wanted.seconds)
        return self.results.get(wanted.key)

    def bring(self, result: Result, name: str) -> bool:
        self.brought.append(name)
        digest = result.outputs[name].digest
        path = self.folder / "sha256" / digest.sha256[:2] / digest.sha256
        assert self.into is not None
        return self.gives and path.exists() and self.into.put_expected([path.read_bytes()], digest)

    def offer(self, wanted: Wanted, result: Result) -> None:
        assert result.key == wanted.key
        self.offered.append((wanted.kind, wanted.name))

    def execute(self, work: Work) -> Result | None:
        if self.executes is None:
            return None
        result = self.executes.ensure(work.step)
        assert result.key == work.wanted.key
        return replace(result, origin=EXECUTED)

    def end(self) -> None:
        """Nothing is on its way."""


@pytest.fixture
def shelf(workshop: Workshop) -> Shelf:
    """The results of another user, with a cache and a seal of its own."""
    return Shelf(folder=workshop.folder / "there/cache")


def elsewhere(workshop: Workshop) -> Engine:
    other = Workshop(folder=workshop.folder / "there", tools=workshop.tools)
    return other.engine()


def here(workshop: Workshop, shelf: Shelf, *, checkout: str = "checkout", tools: bool = True) -> Engine:
    engine = workshop.engine(checkout=checkout)
    shelf.into = engine.cas
    engine.others = Others(remote=shelf, tools_key=lambda name: f"{'7' * 60}{len(name):04}")
    if not tools:
        engine.find_tools = lambda _: None
    return engine


def put(workshop: Workshop, shelf: Shelf, *steps: Step) -> None:
    engine = elsewhere(workshop)
    for step in steps:
        result = engine.ensure(step)
        shelf.results[result.key] = replace(result, origin=THEIRS)


def two() -> tuple[Step, Step]:
    first = shell("echo one >/out/out; echo more >/out/more", name="first", outputs=("out", "more"))
    return first, shell("cat /inputs/one >/out/out; echo two >>/out/out", name="second",
                        inputs={"/inputs/one": first.output("out")})  # fmt: skip


def test_results_of_others_run_nothing_and_bytes_come_when_they_are_needed(workshop: Workshop, shelf: Shelf) -> None:
    first, second = two()
    put(workshop, shelf, first, second)
    engine = here(workshop, shelf)
    assert engine.ensure(second).origin == THEIRS
    assert (shelf.asked, shelf.brought, shelf.offered, workshop.checked) == (["first", "second"], [], [], [])
    assert made(engine, second) == b"one\ntwo\n"
    assert shelf.brought == ["out"], "nothing of the first step is needed"
    assert not engine.made("first").exists(), "an endorsement rests on what ran here"
    rows = {row.name: row for row in graph.rows(engine, [first, second])}
    assert {row.origin for row in rows.values()} == {"cache somewhere, by somebody"}
    # A new process asks nobody.
    assert here(workshop, shelf).is_current(second)
    assert shelf.asked == ["first", "second"]


def test_what_is_not_there_runs_here_on_their_bytes(workshop: Workshop, shelf: Shelf) -> None:
    first, second = two()
    put(workshop, shelf, first)
    engine = here(workshop, shelf)
    assert engine.ensure(second).origin.ours
    assert made(engine, second) == b"one\ntwo\n"
    assert shelf.brought == ["out"]
    assert shelf.offered == [("step", "second"), ("tree", TREE)], "never what somebody else has made"
    origins = [graph.origin(engine, step) for step in (first, second)]
    assert origins == ["cache somewhere, by somebody", "run here"]
    assert graph.origin(here(workshop, shelf, checkout="another"), second) == "local cache"


def test_without_a_remote_what_others_made_does_not_count(workshop: Workshop, shelf: Shelf) -> None:
    """Nor when it does not believe them any more. What ran here replaces their record."""
    first, second = two()
    put(workshop, shelf, first, second)
    here(workshop, shelf).ensure(second)
    shelf.believed = False
    assert here(workshop, shelf).find(first) is None
    shelf.believed = True
    assert here(workshop, shelf).find(first) is not None
    alone = workshop.engine()
    assert alone.find(first) is None
    assert alone.ensure(second).origin.ours
    assert graph.origin(alone, second) == "run here"
    assert here(workshop, shelf).ensure(second).origin.ours


def test_their_results_pass_the_checks_of_this_checkout(workshop: Workshop, shelf: Shelf) -> None:
    step = shell("echo made >/out/out")
    put(workshop, shelf, step)

    def refuse(outputs: object) -> None:
        raise BuildError("is not as it must be")

    with pytest.raises(BuildError, match="is not as it must be"):
        here(workshop, shelf).ensure(replace(step, checks=(refuse,)))
    assert here(workshop, shelf).ensure(replace(step, checks=(lambda _: None,))).origin == THEIRS


@pytest.mark.parametrize("honest", [True, False])
def test_bytes_that_do_not_come_are_made_here(workshop: Workshop, shelf: Shelf, *, honest: bool) -> None:
    """If that gives others than were promised, the build stops and says who promised them."""
    step = shell("echo made >/out/out")
    put(workshop, shelf, step)
    if not honest:
        ((known, result),) = shelf.results.items()
        shelf.results[known] = replace(result, outputs=elsewhere(workshop).ensure(shell("echo x >/out/out")).outputs)
    shelf.gives = False
    engine = here(workshop, shelf)
    engine.ensure(step)
    if honest:
        assert made(engine, step) == b"made\n"
        assert graph.origin(engine, step) == "run here"
    else:
        with pytest.raises(BuildError, match=r"made another out .* than cache somewhere has, by somebody"):
            made(engine, step)


def test_a_remote_knows_how_long_a_step_took(workshop: Workshop, shelf: Shelf) -> None:
    """Of this checkout's last result, whatever its key was; nothing of a step that it has not taken yet."""
    here(workshop, shelf).ensure(shell("sleep 0.3; echo a >/out/out"))
    here(workshop, shelf).ensure(shell("echo b >/out/out"))
    unknown, known = (seconds for name, seconds in zip(shelf.asked, shelf.seconds, strict=True) if name == "step")
    assert unknown is None
    assert known is not None
    assert known > 0.2


def test_a_tool_tree_need_not_be_set_up(workshop: Workshop, shelf: Shelf) -> None:
    """Its digest is enough for what others have; BuildError when it is another than they said."""
    step, missing = shell("echo made >/out/out"), shell("echo missing >/out/out", name="missing")
    put(workshop, shelf, step)
    engine = here(workshop, shelf, tools=False)
    assert engine.key(step) is None
    key = engine.others.tools_key(TREE)
    tree = elsewhere(workshop).ensure(step)  # any result; its digest is replaced
    root = replace(tree.outputs["out"], digest=replace(tree.outputs["out"].digest, sha256=workshop.tools.digest))
    shelf.results[key] = Result(key=key, outputs={ROOT: root}, seconds=1.0, origin=THEIRS)
    assert engine.ensure(step).origin == THEIRS
    assert workshop.checked == []
    assert here(workshop, shelf, tools=False).ensure(missing).origin.ours
    assert workshop.checked == [TREE]
    # A tree that is not what they said.
    workshop.tools = Tree(path=workshop.tools.path, digest="0" * 64)
    other = shell("echo other >/out/out", name="other")
    with pytest.raises(BuildError, match="the python tree: has the digest 0000"):
        here(workshop, shelf, tools=False).ensure(other)


def test_a_step_that_was_executed_elsewhere(workshop: Workshop, shelf: Shelf) -> None:
    shelf.executes = elsewhere(workshop)
    engine = here(workshop, shelf)
    step = shell("echo made >/out/out")
    assert engine.ensure(step).origin == EXECUTED
    assert graph.origin(engine, step) == "executed at somewhere, by somebody"
    assert made(engine, step) == b"made\n"
    assert json.loads((workshop.root / "build/results/step.json").read_bytes())["key"] == engine.key(step)
