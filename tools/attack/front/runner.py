# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Makes attacks, two guests at a time, and comes to a verdict on each.

Held is what was not seen to succeed here and was seen to succeed (or whose honest case passed) beside it. Everything
that stands in the way of seeing either is no "held": it is inconclusive, and unjudged where the artifacts are somebody
else's.
"""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import (
    Attempt,
    Entry,
    Honest,
    Outcome,
    Part,
    Reach,
    Row,
    Undefended,
    UnjudgedError,
    Verdict,
    Weaker,
)
from tools.attack.base.target import Target
from tools.pipeline.base import ambient, children, ui

_REACHES = {Reach.NOTHING: "nothing", Reach.KERNEL: "its kernel", Reach.AGENT: "its agent"}
_REASON = 160  # characters of an exception in the table


@dataclass(frozen=True, kw_only=True)
class Runner:
    """`parts`: what of the target is to be judged. `foreign`: it is somebody else's. `honest` starts a target."""

    lab: Lab
    target: Target
    honest: Callable[[Lab, Target], Reach]
    parts: frozenset[Part] = frozenset(Part)
    foreign: bool = False
    jobs: int = 2

    def run(self, entries: Iterable[Entry], tell: Callable[[Row], None]) -> list[Row]:
        """Every row in the order of the entries; `tell` hears of each when it is there."""
        rows: dict[str, Row] = {}
        order = list(entries)
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            try:
                for future in as_completed([pool.submit(self.row, entry) for entry in order]):
                    row = future.result()
                    rows[row.entry.name] = row
                    tell(row)
            except BaseException:
                # What waits is dropped, what runs is ended: nobody waits for guests after Ctrl-C.
                pool.shutdown(wait=False, cancel_futures=True)
                children.stop()
                raise
        return [rows[entry.name] for entry in order]

    def row(self, entry: Entry) -> Row:
        """One of them; an exception on the way is its reason, not a traceback."""
        began = ambient.monotonic()
        # Elsewhere the line about the row that is there is enough.
        watched = ambient.is_terminal(ui.stream())
        with ui.working(entry.name) if watched else nullcontext():
            verdict, guest, control = self._judge(entry)
        took = ambient.monotonic() - began
        return Row(entry=entry, verdict=verdict, guest=guest, control=control, seconds=took)

    def _judge(self, entry: Entry) -> tuple[Verdict, str, str]:
        attack = entry.attack
        unclear = Verdict.UNJUDGED if self.foreign else Verdict.INCONCLUSIVE
        missing = sorted(attack.parts - self.parts)
        if missing:
            return unclear, f"not there: {', '.join(missing)}", "not made"
        try:
            reach = self.honest(self.lab, self.target)
            if reach < attack.reach:
                return unclear, f"an honest start reaches {_REACHES[reach]} only", "not made"
            seen = self._attempt(entry, "attack", attack.attempt, self.target)
        except Exception as error:  # noqa: BLE001 (whatever keeps a row from its answer is its reason)
            return unclear, _reason(error), "not made"
        if seen.succeeded:
            return Verdict.BROKEN, seen.guest, "not needed"
        try:
            what, beside = self._control(entry)
        except Exception as error:  # noqa: BLE001 (as above)
            return unclear, seen.guest, f"{attack.control.what}: {_reason(error)}"
        verdict = Verdict.HELD if beside.succeeded else unclear
        return verdict, seen.guest, f"{what}: {beside.guest}"

    def _control(self, entry: Entry) -> tuple[str, Outcome]:
        match entry.attack.control:
            case Undefended(what=what, target=make):
                target = make(self.lab, self.target)
                return what, self._attempt(entry, "control", entry.attack.attempt, target)
            case Weaker(what=what, attempt=attempt):
                return what, self._attempt(entry, "control", attempt, self.target)
            case Honest(what=what, attempt=attempt):
                return what, self._attempt(entry, "control", attempt, self.target)

    def _attempt(self, entry: Entry, name: str, attempt: Attempt, target: Target) -> Outcome:
        folder: Path = self.lab.work / "rows" / entry.name / name
        folder.mkdir(parents=True)
        try:
            return attempt(self.lab, target, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def once(honest: Callable[[Lab, Target], Reach]) -> Callable[[Lab, Target], Reach]:
    """The same, which starts each target once a lab."""
    return lambda lab, target: lab.once(f"honest start of {target.name}", partial(honest, lab, target))


def _reason(error: Exception) -> str:
    """In a line: the kind of a bug's exception tells more than its text."""
    text = " ".join(str(error).split()) or "no reason given"
    name = "" if isinstance(error, UnjudgedError) else f"{type(error).__name__}: "
    whole = name + text
    return whole if len(whole) <= _REASON else f"{whole[: _REASON - 1]}…"
