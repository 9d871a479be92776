# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Weaker
from tools.attack.base.target import Target

HELD = Outcome(succeeded=False, guest="refused")
DONE = Outcome(succeeded=True, guest="obeyed")


def refused(*_: object) -> Outcome:
    return HELD


def obeyed(*_: object) -> Outcome:
    return DONE


def crashes(lab: Lab, target: Target, folder: Path) -> Outcome:
    raise ZeroDivisionError("by the attack")


def attacks() -> Iterator[Attack]:
    yes = Weaker(what="without", attempt=obeyed)
    yield Attack(name="held", host="is refused", attempt=refused, control=yes, short=True)
    yield Attack(name="broken", host="is obeyed", attempt=obeyed, control=yes)
    yield Attack(name="no-attack", host="is refused", attempt=refused, control=Weaker(what="without", attempt=refused))
    yield Attack(name="no-honest", host="is refused", attempt=refused, control=Honest(what="it", attempt=refused))
    yield Attack(name="crash", host="divides by zero", attempt=crashes, control=yes)
