# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A million messages, mutated and replayed, to the agent's own code: no panic, and no memory that grows.

At this machine's own speed, on the agent's sources: nothing that --out names can be judged so.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, UnjudgedError, Weaker
from tools.attack.base.target import Target
from tools.attack.undefended import harness
from tools.attack.undefended.harness import Flaw

_MESSAGES = 1_000_000
_SEED = 0x5E5AFE


def attempt(lab: Lab, target: Target, folder: Path, *, flaw: Flaw, seed: int, grown: bool) -> Outcome:
    """Run the harness; a failure of the kind that is looked for is the host's success."""
    del folder
    if target != lab.own:
        raise UnjudgedError("the harness is built from this checkout's agent")
    ran = harness.run(lab, flaw, seed=seed, messages=_MESSAGES)
    found = bool(ran.failure) and ran.failure.startswith("grew") is grown
    return Outcome(succeeded=found, guest=f"failed: {ran.failure}" if ran.failure else ran.line)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, flaw, grown, host in (
        ("panic", Flaw.PANIC, False, "sends a million messages, mutated and replayed, in the hope of a panic"),
        ("growth", Flaw.LEAK, True, "sends a million messages, mutated and replayed, to fill the agent's memory"),
    ):
        how = partial(attempt, seed=_SEED, grown=grown)
        yield Attack(
            name=name,
            host=host,
            attempt=partial(how, flaw=Flaw.NONE),
            control=Weaker(what="the same agent with a flaw planted", attempt=partial(how, flaw=flaw)),
            parts=frozenset({Part.AGENT}),
        )
