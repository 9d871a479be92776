# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the host's whose fields name memory as a device's, and a method that runs when the host likes."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.acpi import attempts, events
from tools.attack.acpi.attempts import Result
from tools.attack.acpi.host import Side
from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.guests.monitor import Monitor
from tools.attack.undefended import kernel
from tools.pipeline.base.errors import BuildError

_EARLY = {"local APIC", "I/O APIC"}
"""Without an interrupt controller the kernel does not come as far as AML, which would say that it took the tables."""


def attempt(
    lab: Lab, target: Target, folder: Path, *, start: Callable[[Side, Path, Path], Result], early: bool
) -> Outcome:
    """Whether the memory that the table aims at is another."""
    result = start(kernel.side(lab, target), folder / "start", lab.tool("iasl", "build"))
    result.boot.memory.unlink()
    if not (result.obeyed or result.ran or early):
        raise BuildError("nothing shows that the kernel took the host's tables")
    return Outcome(
        succeeded=result.obeyed, guest="the memory changed" if result.obeyed else "the memory stayed as it was"
    )


def attacks() -> Iterator[Attack]:
    """A row for each field, and one for a general-purpose event."""
    yield from (
        _row(name.lower().replace(" ", "-").replace("/", ""), f"aims the {name} of its tables at memory", start, name)
        for name, start in attempts.TABLES.items()
    )
    method = partial(events.method, connect=Monitor.connect)
    yield _row("event-method", "has AML for an event write to memory, and raises the event later", method, "")


def _row(name: str, host: str, start: Callable[[Side, Path, Path], Result], field: str) -> Attack:
    return Attack(
        name=name,
        host=host,
        attempt=partial(attempt, start=start, early=field in _EARLY),
        control=Undefended(what="Debian's kernel", target=kernel.debian),
        parts=frozenset({Part.KERNEL}),
        reach=Reach.KERNEL,
    )
