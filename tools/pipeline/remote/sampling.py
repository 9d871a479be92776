# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Steps that were executed elsewhere count as built once some of them, chosen at random, were run here too.

    steps of a profile ── those executed elsewhere, not compared yet ── a share of them, one at least ── run here
                                                                          ├─ the same bytes: all of them count
                                                                          └─ others: none counts, the build ends

They are chosen when all results are known, by the kernel's random numbers: whoever ran them cannot know which. A wrong
result among n of which k are run again is found with probability k/n, in each build anew.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.remote import Different
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.origin import How
from tools.pipeline.engine.store.results import Result

T = TypeVar("T")


def settle(engine: Engine, steps: Sequence[Step]) -> None:
    """Compare what was executed elsewhere among the steps, all of which have been made.

    BuildError, naming step and executor, when a step gives other bytes here.
    """
    remote, waiting = engine.others.remote, uncompared(engine, steps)
    if remote is None or not waiting:
        return
    chosen = choose(waiting, remote.share)
    ui.line(f"   steps executed elsewhere: {len(waiting)}; run here, too, to compare: {len(chosen)}")
    for _, claimed in chosen:
        # Bytes that do not come tell the service what was drawn: whoever stops the build for it, or a time limit that
        # does, must not give it another draw with the same results.
        engine.results.remove(claimed.key)
    try:
        for step, claimed in chosen:
            _compare(engine, step, claimed)
    except Different:
        for other, _ in waiting:
            claim = engine.find(other)
            if claim is not None and not claim.origin.ours:
                engine.replace(other, claim, None)
        raise
    for step, claimed in waiting:
        now = engine.find(step)
        if now is None:
            # Another profile's check, beside this one.
            raise BuildError("was thrown away: another check has found a difference", where=step.title)
        if now == claimed:
            engine.replace(step, claimed, replace(claimed, origin=replace(claimed.origin, how=How.COMPARED)))


def _compare(engine: Engine, step: Step, claimed: Result) -> None:
    """Run the step here; Different, naming step and executor, when it gives other bytes."""
    where = f"{step.name} ({step.title})"
    try:
        made = engine.again(step)
    except Different:
        raise  # of an input, which it names
    except BuildError as error:
        what = f"{error.what}; {claimed.origin.executor} says that it ended well there"
        raise BuildError(what, where=error.where or where, hint=error.hint, details=error.details) from None
    if made.outputs != claimed.outputs:
        raise Different(
            f"{claimed.origin.executor} says that it gives {_digests(claimed, made)}; here it gives "
            f"{_digests(made, claimed)}",
            where=where,
            hint="nothing that was executed there counts any more; find out why before you execute there again",
        )


def refuse(engine: Engine, steps: Sequence[Step], *, what: str) -> None:
    """BuildError when one of the steps was executed elsewhere and not compared; `what` is not done then."""
    for step, result in uncompared(engine, steps):
        raise BuildError(
            f"was {result.origin} and not compared yet, so nothing is {what}",
            where=f"{step.name} ({step.title})",
            hint="./doit build compares it",
        )


def choose(steps: Sequence[T], share: float) -> list[T]:
    """A share of the steps, never fewer than one, by chance; in their order."""
    count = min(len(steps), max(1, math.ceil(len(steps) * share)))
    drawn = sorted(range(len(steps)), key=lambda _: ambient.random_bytes(16))[:count]
    return [steps[number] for number in sorted(drawn)]


def uncompared(engine: Engine, steps: Sequence[Step]) -> list[tuple[Step, Result]]:
    """Those that were executed elsewhere, and count only when they have been compared; with what was said of them."""
    found = ((step, engine.find(step)) for step in steps)
    return [(step, result) for step, result in found if result is not None and result.origin.how is How.EXECUTED]


def _digests(result: Result, other: Result) -> str:
    """The outputs that differ, with the beginning of their SHA-256."""
    return ", ".join(
        f"{name} {node.digest.sha256[:16]}…"
        for name, node in sorted(result.outputs.items())
        if other.outputs.get(name) != node
    )
