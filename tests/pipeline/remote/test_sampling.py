# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves the checkout before what was executed elsewhere has been compared: output folders, publishing.

tests/pipeline/remote/reapi/ has the executor itself; here it is one that does as the test says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pipeline.engine.test_others import Shelf, elsewhere, here
from tests.pipeline.engine.workshop import Workshop, shell
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.remote import Different, Work
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.engine.store.origin import How
from tools.pipeline.engine.store.results import Result
from tools.pipeline.engine.tree import Tree
from tools.pipeline.remote import sampling
from tools.pipeline.tasks import outputs
from tools.pipeline.tasks.commands import publishing

STEPS = (shell("echo a >/out/out", name="a"), shell("echo b >/out/out", name="b"))
PROFILE: Any = SimpleNamespace(name="production")


@dataclass(kw_only=True)
class Executor(Shelf):
    """Gives the right bytes, but for `lies`."""

    lies: tuple[str, ...] = ()

    def execute(self, work: Work) -> Result | None:
        result = super().execute(work)
        if result is None or work.step.name not in self.lies:
            return result
        return replace(result, outputs={"out": replace(result.outputs["out"], digest=Digest.of(b"evil\n"))})


@pytest.fixture
def workshop(tmp_path: Path, python_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user-state"))
    return Workshop(folder=tmp_path / "workshop", tools=python_tree)


def executed(workshop: Workshop, *steps: Step, lies: tuple[str, ...] = (), share: float = 1.0) -> Engine:
    shelf = Executor(folder=workshop.folder / "there/cache", lies=lies, share=share)
    shelf.executes = elsewhere(workshop)
    engine = here(workshop, shelf)
    for step in steps:
        assert engine.ensure(step).origin.how is How.EXECUTED
    return engine


def project(engine: Engine, *steps: Step) -> Any:
    return SimpleNamespace(engine=engine, plan=SimpleNamespace(deliverable=lambda _: SimpleNamespace(steps=steps)),
                           root=engine.root)  # fmt: skip


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was filled, in place of an output folder."""
    found: list[str] = []
    folder = SimpleNamespace(fill=lambda *_, profile, **__: found.append(profile), is_current=lambda *_: True)
    monkeypatch.setattr(outputs, "_folder", lambda *_: folder)
    monkeypatch.setattr(outputs, "_manifest", lambda *_: b"")
    return found


@pytest.mark.parametrize("lies", [(), ("b",)])
def test_an_output_folder_is_filled_after_the_check(workshop: Workshop, filled: list[str], lies: tuple[str]) -> None:
    engine = executed(workshop, *STEPS, lies=lies)
    if lies:
        with pytest.raises(BuildError, match=r"^b \(the b\): somewhere \(worker somebody\) says that it gives out "):
            outputs._fill(project(engine, *STEPS), PROFILE)
        assert filled == []
        return
    assert not outputs.is_current(project(engine, *STEPS), PROFILE), "it would be left as it is"
    outputs._fill(project(engine, *STEPS), PROFILE)
    assert filled == ["production"]
    assert outputs.is_current(project(engine, *STEPS), PROFILE)


def test_what_was_not_compared_is_not_published(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason that is given; after the check it goes on to what else is looked at."""

    class GoesOnError(Exception):
        pass

    def goes_on(*_: object) -> None:
        raise GoesOnError

    monkeypatch.setattr(publishing, "pins_of", goes_on)
    engine = executed(workshop, *STEPS)
    publish: Callable[..., None] = publishing._publish
    with pytest.raises(BuildError, match="not compared yet, so nothing is published"):
        publish(project(engine, *STEPS), PROFILE, kernel_list="", although="because")
    sampling.settle(engine, STEPS)
    with pytest.raises(GoesOnError):
        publish(project(engine, *STEPS), PROFILE, kernel_list="", although="because")


def test_a_step_that_ended_well_there_and_fails_here(workshop: Workshop) -> None:
    """It is told who says otherwise; and nothing has been compared."""
    step = shell("[ -e /inputs/x ] || exit 3; echo a >/out/out", name="a")
    engine = executed(workshop, *STEPS)
    key = engine.key(step)
    assert key is not None
    said = engine.ensure(STEPS[0])
    engine.results.write(replace(said, key=key))
    assert engine.others.remote is not None
    with pytest.raises(
        BuildError, match=r"ended with status 3.*; somewhere \(worker somebody\) says that it ended well"
    ):
        sampling.settle(workshop_engine(engine), [step])


def workshop_engine(engine: Engine) -> Engine:
    """The same in a new process."""
    return replace(engine, _known={})


def test_a_check_that_is_cut_short_gives_no_second_draw(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service sees what is drawn by what is asked of it then, and may stall until somebody gives up."""
    engine = executed(workshop, *STEPS, lies=("b",), share=0.5)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "choose", lambda waiting, _: waiting[1:])
    monkeypatch.setattr(sampling, "_compare", stopped)
    with pytest.raises(KeyboardInterrupt):
        sampling.settle(engine, STEPS)
    later = workshop_engine(engine)
    assert later.find(STEPS[0]) is not None, "it was not drawn"
    assert later.find(STEPS[1]) is None


def test_what_another_check_has_thrown_away_does_not_count(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two profiles are checked at the same time, and the other one finds the lie in a step that both have."""
    engine = executed(workshop, *STEPS)

    def compare(*_: object) -> None:
        for step in STEPS:
            found = engine.find(step)
            if found is not None:
                engine.replace(step, found, None)

    monkeypatch.setattr(sampling, "_compare", compare)
    with pytest.raises(BuildError, match="was thrown away: another check has found a difference"):
        sampling.settle(engine, STEPS)


def test_a_lie_that_an_input_shows(workshop: Workshop) -> None:
    """A step that is chosen takes bytes that the service promised for another and does not give."""
    first = shell("echo one >/out/out", name="first")
    second = shell("cat /inputs/x >/out/out", name="second", inputs={"/inputs/x": first.output("out")})
    engine = executed(workshop, first, lies=("first",))
    key = engine.key(second)
    assert key is not None
    engine.results.write(replace(engine.ensure(first), key=key))
    later = workshop_engine(engine)
    with pytest.raises(Different, match=r"made another out from the same inputs than executed at somewhere has"):
        sampling.settle(later, [second])
    assert later.results.read(key) is None, "nothing that was executed there counts any more"
