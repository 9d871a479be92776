# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Registries that are down, mute, slow, full or break off: a build goes on without them, and says so once."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.loopback import Relay, Slow, free_port, to
from tests.pipeline.engine.workshop import shell
from tests.pipeline.registry.liar import NAME, Answer, Asked, Liar
from tests.pipeline.remote import kit
from tests.pipeline.remote.conftest import Machines
from tests.publish.kit import Server
from tools.pipeline.base import children
from tools.pipeline.engine import others
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Step
from tools.pipeline.remote import choose, patience, uploads
from tools.pipeline.remote.patience import Pace, Ticket, TooLong

RAN, TAKEN = "run here", "cache 127.0.0.1"


def steps(count: int = 3) -> list[Step]:
    return [shell(f"echo {number} >/out/out", name=f"step{number}") for number in range(count)]


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


@pytest.fixture
def mute() -> Iterator[kit.Mute]:
    made = kit.Mute()
    yield made
    made.close()


# ── the registry ──


def test_down(machine: Machines, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody listens there."""
    at = f"127.0.0.1:{free_port()}/team/cache"
    assert set(machine("m", at=at, pushes="ci").build(*steps()).values()) == {RAN}
    said = capfd.readouterr().err
    assert said.count("Connection refused") == said.count("goes on without it") == 1


def test_mute(machine: Machines, mute: kit.Mute, capfd: pytest.CaptureFixture[str]) -> None:
    """It takes connections and says nothing: a step waits no longer than it would take, and the next not at all."""
    quick, *rest = steps()
    m = machine("m", at=f"{mute.host}/team/cache", pushes="ci")
    machine("m").build(quick)  # with a registry that answers, so that its time is known
    again = replace(quick, argv=(*quick.argv[:-1], f"{quick.argv[-1]} # changed"))
    assert set(m.build(again, *rest).values()) == {RAN}
    said = capfd.readouterr().err
    assert said.count("has not answered within ") == said.count("s; the build goes on without it") == 1, said
    assert len(mute.connections) == 1


def test_gone_in_the_middle(machine: Machines, server: Server, place: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Between the record and its bytes."""
    one = steps(1)[0]
    machine("ci", pushes="ci").build(one)
    between = Relay(to(server.port))
    other = machine("other", at=place.replace(server.host, between.host))
    engine, target = other.engine(), other.folder / "copy"
    assert str(engine.ensure(one).origin).startswith(TAKEN)
    between.close()
    kit.shared(engine)._registry.close()
    engine.copy(one, "out", target)
    assert target.read_bytes() == b"0\n"
    said = capfd.readouterr().err
    assert said.count("goes on without it") == said.count("making it here") == 1


@pytest.mark.parametrize("rate", [1 << 30, 2 << 10])
def test_slow(machine: Machines, server: Server, place: str, rate: int, capfd: pytest.CaptureFixture[str]) -> None:
    """What comes more slowly than it is made is made; the same file is brought where it comes in time."""
    big = shell("head -c 600000 /dev/zero | tr '\\0' x >/out/out; cp /out/out /out/more", outputs=("out", "more"))
    small = shell("echo small >/out/out", name="small")
    machine("ci", pushes="ci").build(big, small)
    narrow = Slow(server.port, free=8 << 10, rate=rate)
    other = machine("other", at=place.replace(server.host, narrow.host))
    engine = other.engine()
    for one in (big, small):
        assert str(engine.ensure(one).origin).startswith(TAKEN)
        engine.copy(one, "out", other.folder / one.name)
    said = capfd.readouterr().err
    assert said.count("more slowly than their steps run") == said.count("making it here") == (rate < 1 << 20)
    assert (other.folder / "step").read_bytes() == b"x" * 600_000
    assert (other.folder / "small").read_bytes() == b"small\n"
    narrow.close()


@pytest.mark.parametrize("status", [201, 403, 413, 429, 500, 507])
def test_full(machine: Machines, liar: Liar, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    """It takes no blob: said once, and what it has is still taken."""
    place = f"{liar.host}/{NAME}"
    first, *rest = steps()
    machine("before", at=place, pushes="ci").build(first)
    known = set(liar.tags)
    capfd.readouterr()

    def lie(asked: Asked, answer: Answer) -> Answer:
        refuses = status != 201 and asked.method == "POST"
        return (status, {}, b'{"errors":[{"code":"DENIED","message":"quota"}]}') if refuses else answer

    liar.lie = lie
    found = machine("m", at=place, pushes="ci").build(first, *rest)
    assert found.pop(first.name).startswith(TAKEN)
    assert set(found.values()) == {RAN}
    said = capfd.readouterr().err
    assert said.count("does not take results") == (status != 201), said
    sent = [tag for tag in set(liar.tags) - known if tag.startswith("step-")]
    assert len(sent) == (2 if status == 201 else 0)


def test_a_tag_that_is_no_manifest(machine: Machines, liar: Liar, capfd: pytest.CaptureFixture[str]) -> None:
    place, one = f"{liar.host}/{NAME}", steps(1)[0]
    machine("ci", at=place, pushes="ci").build(one)
    for number, body in enumerate((b"", b"[]", b"{", b'{"annotations": []}', b"[" * 100_000)):
        liar.lie = lambda asked, answer, body=body: (  # type: ignore[misc]  # bound by default
            (200, {"Content-Type": "x"}, body) if asked.path.startswith("manifests/step-") else answer
        )
        capfd.readouterr()
        assert machine(f"m{number}", at=place).build(one)["step0"] == RAN
        assert capfd.readouterr().err.count("is not signed: ignored") == 1
    liar.lie = lambda _, answer: answer
    assert machine("last", at=place).build(one)["step0"].startswith(TAKEN)


def test_a_manifest_that_is_not_what_its_digest_says(machine: Machines, liar: Liar) -> None:
    place, one = f"{liar.host}/{NAME}", steps(1)[0]
    machine("ci", at=place, pushes="ci").build(one)
    liar.lie = lambda asked, answer: (
        (answer[0], {**answer[1], "Docker-Content-Digest": f"sha256:{'0' * 64}"}, answer[2])
        if asked.method == "GET" and asked.path.startswith("manifests/")
        else answer
    )
    assert machine("m", at=place).build(one)["step0"] == RAN


def test_who_takes_nothing_can_send(machine: Machines, place: str) -> None:
    """No builder listed: nothing is taken, not even one's own."""
    for name in ("first", "second"):
        assert machine(name, lists=(), pushes="ci").build(*steps(1))["step0"] == RAN
    assert machine("other").build(*steps(1))["step0"].startswith(TAKEN)


def test_a_key_that_cannot_sign(machine: Machines, capfd: pytest.CaptureFixture[str]) -> None:
    """A token that is not there is found out when there is something to sign, and ends no build."""
    m = machine("m", pushes="ci")
    config = m.config
    uri = "pkcs11:token=a;object=b?module-path=c&pin-source=none"
    config.write_text(config.read_text().replace(f"{m.keys}/ci.key", uri))
    engine = m.workshop.engine()
    remote = choose.remote(f"http://{m.place}", cas=engine.cas, folder=engine.build, path=config)
    engine.others = others.Others(remote=remote, tools_key=lambda _: kit.TREE_KEY)
    assert engine.ensure(steps(1)[0]).origin.ours
    remote.end()
    assert capfd.readouterr().err.count("does not take results: cannot be read: No such file") == 1


# ── waiting ──


def test_what_is_waited_for() -> None:
    assert patience.within(60, lambda _: "answer") == "answer"
    with pytest.raises(ZeroDivisionError):
        patience.within(60, lambda _: 1 // 0)


def test_what_is_waited_for_no_longer() -> None:
    """Whoever works is told, and what still comes is thrown away."""
    tickets: list[Ticket] = []
    go = threading.Event()

    def work(ticket: Ticket) -> None:
        tickets.append(ticket)
        go.wait(60)

    with pytest.raises(TooLong):
        patience.within(0.1, work)
    assert tickets[0].over.is_set()
    with pytest.raises(TooLong):
        list(tickets[0].chunks([b"late"]))
    go.set()


def test_a_build_that_is_stopped_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children._STATE, "stopping", True)
    go = threading.Event()
    with pytest.raises(children.Interrupted):
        patience.within(60, lambda _: go.wait(60))
    go.set()


def test_pace() -> None:
    """Nothing is said of what nobody has measured."""
    pace = Pace()
    assert not pace.hopeless(1 << 40, 1.0)
    pace.came(1 << 20, 1.0)
    assert not pace.hopeless(10 << 20, 11.0)
    assert pace.hopeless(10 << 20, 9.0)
    mute = Pace()
    mute.came(0, 5.0)
    assert mute.hopeless(1000, 60.0)


def test_the_end_of_a_build_waits_for_what_is_sent_but_not_for_ever() -> None:
    sending = uploads.Uploads("somewhere")
    go, done = threading.Event(), []

    def job() -> None:
        go.wait(60)
        done.append(1)

    for _ in range(3):
        sending.add(job)
    assert sending.end(wait=0.1) == 3
    go.set()
    assert sending.end(wait=60) == 0
    assert done == [1, 1, 1]


def test_the_times_that_a_step_may_wait(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it took the last time, no less than any step costs; ten seconds for a step that nobody knows."""
    found: list[float] = []

    def within(seconds: float, work: object) -> None:
        found.append(seconds)
        raise TooLong

    monkeypatch.setattr(patience, "within", within)
    one = steps(1)[0]
    for seconds, limit in ((None, patience.UNKNOWN), (0.1, patience.LEAST), (50.0, 50.0)):
        remote = kit.shared(machine("m").engine())
        assert remote.find(others.wanted(one, "0" * 64, seconds=seconds)) is None
        assert found.pop() == limit


def test_an_engine_knows_the_time_of_a_changed_step(machine: Machines) -> None:
    m = machine("m")
    one = steps(1)[0]
    m.build(one)
    engine: Engine = m.engine()
    assert engine._last(one) == engine.ensure(one).seconds
    assert engine._last(replace(one, name="new")) is None
