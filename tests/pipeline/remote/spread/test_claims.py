# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Claims, one by one, through a real registry: which of them make a step wait, and for how long at most."""

import threading
import time
from collections.abc import Callable

import pytest

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote import kit
from tests.pipeline.remote.conftest import Machines
from tests.pipeline.remote.kit import Machine
from tools.pipeline.base import children
from tools.pipeline.engine import others
from tools.pipeline.engine.remote import Wanted
from tools.pipeline.engine.step import Step
from tools.pipeline.remote import claims
from tools.pipeline.remote.claims import Claim, Claims

RAN, TAKEN = "run here", "cache 127.0.0.1"
_LISTED = ("ci", "alice")


def step(text: str = "made") -> Step:
    return shell(f"echo {text} >/out/out")


def wanted(machine: Machine, one: Step, *, seconds: float | None = None) -> Wanted:
    key = machine.engine().key(one)
    assert key is not None
    return others.wanted(one, key, seconds=seconds)


def claim(machine: Machine, one: Step) -> Claim | None:
    """What a worker says that begins a step; who has it, if somebody has."""
    remote = kit.shared(machine.engine())
    assert remote.signer is not None
    mine = Claims(registry=kit.registry(machine.place), builders=dict(remote.config.builders), worker=machine.pushes)
    return mine.take(wanted(machine, one), remote.signer())


def test_the_last_one_has_it(machine: Machines) -> None:
    """Whoever comes later is told who has it; a stranger neither has it nor sees that he does not count."""
    ci, alice = (machine(name, lists=_LISTED, pushes=name) for name in _LISTED)
    assert claim(ci, step()) is None
    assert claim(ci, step()) is None, "its own"
    seen = claim(alice, step())
    assert seen is not None
    assert seen.worker == "ci"
    assert claim(alice, step("other")) is None


def test_two_at_once(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find nothing, both write: one has it. Whoever does not heed it has it, too: the control."""
    ci, alice = (machine(name, lists=_LISTED, pushes=name) for name in _LISTED)
    both = threading.Barrier(2)
    read = Claims.read

    def together(self: Claims, kind: str, wanted: Wanted, **more: object) -> Claim | None:
        found = read(self, kind, wanted, **more)  # type: ignore[arg-type]  # fields of several types
        if kind == claims.CLAIMS:
            both.wait(60)
        return found

    def race(one: Step) -> list[Claim | None]:
        found: list[Claim | None] = []
        threads = [threading.Thread(target=lambda who=who: found.append(claim(who, one))) for who in (ci, alice)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    monkeypatch.setattr(Claims, "read", together)
    assert sorted(found is None for found in race(step())) == [False, True]
    monkeypatch.setattr(claims, "left", lambda *_: 0.0)
    assert race(step("unread")) == [None, None]


def test_a_writer_that_is_slow(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """He finds nothing, and writes when another has read back his own already: the second tag says so."""
    ci, alice = (machine(name, lists=_LISTED, pushes=name) for name in _LISTED)
    read = Claims.read
    found: list[Claim | None] = []

    def slow(self: Claims, kind: str, wanted: Wanted, **more: object) -> Claim | None:
        seen = read(self, kind, wanted, **more)  # type: ignore[arg-type]  # fields of several types
        if self.worker == "ci" and kind == claims.CLAIMS and not found:
            found.append(seen)
            assert claim(alice, step()) is None
        return seen

    monkeypatch.setattr(Claims, "read", slow)
    seen = claim(ci, step())
    assert found == [None]
    assert seen is not None
    assert seen.worker == "alice"


def _started(machine: Machine, one: Step) -> tuple[threading.Thread, dict[str, str]]:
    found: dict[str, str] = {}
    thread = threading.Thread(target=lambda: found.update(machine.build(one)))
    thread.start()
    return thread, found


def _waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when somebody waits for another's result."""
    waiting, left = threading.Event(), claims.left

    def seen(claim: Claim, wanted: Wanted) -> float:
        waiting.set()
        return left(claim, wanted)

    monkeypatch.setattr(claims, "left", seen)
    return waiting


def test_the_result_of_who_has_it_is_taken(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    ci, alice = (machine(name, lists=_LISTED, pushes=name) for name in _LISTED)
    waiting = _waits(monkeypatch)
    claim(alice, step())
    thread, found = _started(ci, step())
    assert waiting.wait(60)
    monkeypatch.setattr(Claims, "take", lambda *_: None)
    assert alice.build(step())["step"] == RAN
    thread.join(120)
    assert found["step"].startswith(TAKEN)


def test_a_dead_worker_costs_a_bounded_wait(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """He is waited for, and then the step runs here; nobody waits for what a claim of his says."""
    ci, alice = (machine(name, lists=_LISTED, pushes=name) for name in _LISTED)
    waiting = _waits(monkeypatch)
    monkeypatch.setattr(claims, "UNKNOWN", 3.0)
    assert claim(alice, step()) is None
    assert ci.build(step())["step"] == RAN
    assert waiting.is_set()


def _stranger(machine: Machines) -> Step:
    assert claim(machine("mallory", lists=("mallory",), pushes="mallory"), step()) is None
    return step()


def _old(machine: Machines) -> Step:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.pipeline.base.ambient.now", lambda: time.time() - 100_000)
        assert claim(machine("alice", lists=_LISTED, pushes="alice"), step()) is None
    return step()


def _replayed(machine: Machines) -> Step:
    """A good claim of a listed builder, put where another step's is looked for."""
    alice = machine("alice", lists=_LISTED, pushes="alice")
    assert claim(alice, step()) is None
    there = kit.registry(alice.place)
    content = there.resolve(claims.tag(wanted(alice, step())))
    assert content is not None
    there.manifest(content, claims.tag(wanted(alice, step("other"))))
    return step("other")


def _endless(machine: Machines) -> Step:
    """A time that is no number, signed by a listed builder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.pipeline.base.ambient.now", lambda: 10**400)
        assert claim(machine("alice", lists=_LISTED, pushes="alice"), step()) is None
    return step()


@pytest.mark.parametrize("put", [_stranger, _old, _replayed, _endless])
def test_what_makes_nobody_wait(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, put: Callable[[Machines], Step]
) -> None:
    """With ten minutes for a step whose time is not known, a wait would be noticed: there is no poll at all."""
    one = put(machine)
    polls: list[float] = []
    monkeypatch.setattr(children, "sleep", polls.append)
    assert machine("ci", lists=_LISTED, pushes="ci").build(one)["step"] == RAN
    assert not polls


def test_who_sends_nothing_claims_nothing_and_waits_for_nobody(machine: Machines) -> None:
    alice = machine("alice", lists=_LISTED, pushes="alice")
    assert claim(alice, step()) is None
    other = machine("other", lists=_LISTED)
    assert other.build(step(), shell("echo 2 >/out/out", name="second"))["step"] == RAN
    second = wanted(other, shell("echo 2 >/out/out", name="second"))
    assert kit.registry(other.place).resolve(claims.tag(second)) is None


@pytest.mark.parametrize("ahead", [0.0, 1e12, float("inf")])
@pytest.mark.parametrize(("seconds", "most"), [(None, claims.UNKNOWN), (100.0, 150.0), (0.0, 2.0), (1e9, 3600.0)])
def test_no_claim_is_waited_for_longer_than_the_step_takes(seconds: float | None, most: float, ahead: float) -> None:
    one = Wanted(kind="step", key="1" * 64, outputs=("out",), name="step", title="the step", seconds=seconds)
    found = claims.left(Claim(builder="b", worker="w", time=time.time() + ahead), one)
    assert most - 1 <= found <= most
