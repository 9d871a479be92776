# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From outcomes to verdicts: what counts as held, and everything that does not."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tools.attack.base.lab import Lab
from tools.attack.base.model import (
    Attack,
    Control,
    Entry,
    Honest,
    Outcome,
    Part,
    Reach,
    Row,
    Topic,
    Undefended,
    UnjudgedError,
    Verdict,
    Weaker,
)
from tools.attack.base.target import Target
from tools.attack.front import table
from tools.attack.front.runner import Runner
from tools.pipeline.base.errors import BuildError

HELD = Outcome(succeeded=False, guest="refused")
DONE = Outcome(succeeded=True, guest="obeyed")
OTHER = Target(name="other", folder=Path("other"))


def says(outcome: Outcome) -> Callable[[Lab, Target, Path], Outcome]:
    return lambda *_: outcome


def crashes(lab: Lab, target: Target, folder: Path) -> Outcome:
    raise ValueError("a\nbug " + "x" * 500)


def planted(lab: Lab, target: Target, folder: Path) -> Outcome:
    """Succeeds against the build without the defence only."""
    return DONE if target is OTHER else HELD


UNDEFENDED = Undefended(what="a build without it", target=lambda *_: OTHER)


def entry(attempt: Callable[[Lab, Target, Path], Outcome], control: Control, **fields: object) -> Entry:
    attack = replace(Attack(name="planted", host="tries", attempt=attempt, control=control), **fields)  # type: ignore[arg-type]  # several types
    return Entry(topic=Topic.BOOT, name="boot/kind/planted", attack=attack)


@pytest.fixture
def runner(lab: Lab, tmp_path: Path) -> Runner:
    return Runner(lab=replace(lab, work=tmp_path), target=lab.own, honest=lambda *_: Reach.AGENT)


def test_held_takes_a_control_that_succeeds(runner: Runner) -> None:
    row = runner.row(entry(planted, UNDEFENDED))
    assert (row.verdict, row.guest, row.control) == (Verdict.HELD, "refused", "a build without it: obeyed")
    assert table.status([row]) == 0
    for control in (Weaker(what="without", attempt=says(DONE)), Honest(what="honest", attempt=says(DONE))):
        assert runner.row(entry(says(HELD), control)).verdict is Verdict.HELD


@pytest.mark.parametrize(
    "control",
    [
        # The same payload fails against a build without the defence: it was no attack.
        Undefended(what="it", target=lambda lab, _: lab.own),
        Weaker(what="it", attempt=says(HELD)),
        Honest(what="it", attempt=says(HELD)),
        Weaker(what="it", attempt=crashes),
        Undefended(what="it", target=lambda *_: OTHER.derive("x", Path("/nowhere/x"))),
    ],
)
def test_a_control_that_does_not_succeed_shows_nothing(runner: Runner, control: Control) -> None:
    row = runner.row(entry(says(HELD), control))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.control.startswith("it: ")
    assert table.status([row]) == 1


def test_broken_is_broken_whatever_the_control_says(runner: Runner) -> None:
    for control in (UNDEFENDED, Honest(what="it", attempt=crashes)):
        row = runner.row(entry(says(DONE), control))
        assert (row.verdict, row.guest) == (Verdict.BROKEN, "obeyed")
        assert table.status([row]) == 1


def test_a_crash_is_a_reason_and_no_traceback(runner: Runner) -> None:
    row = runner.row(entry(crashes, UNDEFENDED))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.guest.startswith("ValueError: a bug xxx")
    assert len(row.guest) <= 160
    assert "\n" not in row.guest


def test_an_honest_start_comes_first(runner: Runner) -> None:
    dead = replace(runner, honest=lambda *_: Reach.KERNEL)
    row = dead.row(entry(planted, UNDEFENDED))
    assert (row.verdict, row.guest) == (Verdict.INCONCLUSIVE, "an honest start reaches its kernel only")
    assert dead.row(entry(planted, UNDEFENDED, reach=Reach.KERNEL)).verdict is Verdict.HELD

    def fails(lab: Lab, target: Target) -> Reach:
        raise BuildError("QEMU ended by itself")

    assert replace(runner, honest=fails).row(entry(planted, UNDEFENDED)).verdict is Verdict.INCONCLUSIVE


def unjudgeable(lab: Lab, target: Target, folder: Path) -> Outcome:
    raise UnjudgedError("has no agent of ours")


def test_what_cannot_be_judged_of_others_is_never_held(runner: Runner) -> None:
    foreign = replace(runner, foreign=True, parts=frozenset({Part.FIRMWARE}))
    firmware = frozenset({Part.FIRMWARE})
    whole = entry(planted, UNDEFENDED)
    assert foreign.row(whole).guest == "not there: agent, kernel"
    rows = [
        foreign.row(whole),
        foreign.row(entry(crashes, UNDEFENDED, parts=firmware)),
        foreign.row(entry(unjudgeable, UNDEFENDED, parts=firmware)),
        foreign.row(entry(says(HELD), Honest(what="it", attempt=says(HELD)), parts=firmware)),
    ]
    assert {row.verdict for row in rows} == {Verdict.UNJUDGED}
    # Nothing was judged: that is no success.
    assert table.status(rows) == 1
    assert table.status([*rows, foreign.row(entry(planted, UNDEFENDED, parts=firmware))]) == 0
    assert foreign.row(entry(says(DONE), UNDEFENDED, parts=firmware)).verdict is Verdict.BROKEN
    # Of our own, nothing is unjudged.
    assert runner.row(entry(unjudgeable, UNDEFENDED)).verdict is Verdict.INCONCLUSIVE


def test_an_attempt_has_a_folder_of_its_own_and_none_is_left(runner: Runner) -> None:
    seen = []

    def writes(lab: Lab, target: Target, folder: Path) -> Outcome:
        assert not list(folder.iterdir())
        (folder / "file").write_bytes(b"x")
        seen.append(folder)
        return planted(lab, target, folder)

    assert runner.row(entry(writes, UNDEFENDED)).verdict is Verdict.HELD
    assert len(set(seen)) == 2
    assert not any(folder.exists() for folder in seen)


def test_two_at_a_time_and_told_of_each(runner: Runner) -> None:
    together = threading.Barrier(2, timeout=60)

    def waits(lab: Lab, target: Target, folder: Path) -> Outcome:
        together.wait()
        return planted(lab, target, folder)

    entries = [replace(entry(waits, UNDEFENDED), name=f"boot/kind/{number}") for number in range(4)]
    told: list[Row] = []
    rows = runner.run(entries, told.append)
    assert [row.entry for row in rows] == entries
    assert sorted(row.entry.name for row in told) == [entry.name for entry in entries]


def test_what_is_made_once_is_made_once(lab: Lab, tmp_path: Path) -> None:
    fresh = Lab(project=lab.project, own=lab.own, work=tmp_path)
    made = []

    def make() -> int:
        made.append(1)
        raise BuildError("no")

    for _ in range(2):
        with pytest.raises(BuildError):
            fresh.once("thing", make)
    assert len(made) == 1
    assert fresh.once("other", lambda: 7) == fresh.once("other", lambda: 8) == 7


def test_the_document(runner: Runner) -> None:
    rows = [runner.row(entry(planted, UNDEFENDED)), runner.row(entry(says(DONE), UNDEFENDED))]
    data = json.loads(table.document(rows, {"kernel": "00"}))
    assert data["summary"] == {"held": 1, "broken": 1, "inconclusive": 0, "unjudged": 0}
    assert data["artifacts"] == {"kernel": "00"}
    assert data["rows"][0] | {"seconds": 0} == {
        "name": "boot/kind/planted",
        "topic": "boot",
        "host": "tries",
        "guest": "refused",
        "verdict": "held",
        "control": {"kind": "undefended", "what": "a build without it", "saw": "a build without it: obeyed"},
        "seconds": 0,
    }
