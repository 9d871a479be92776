# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Machines that share results through a real registry: what is taken, what is sent, and what is not believed."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote import kit
from tests.pipeline.remote.conftest import Machines
from tests.publish.kit import Server
from tools.pipeline.engine import others
from tools.pipeline.engine.remote import TREE, Wanted
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.engine.store.results import Result
from tools.pipeline.registry import oci
from tools.pipeline.remote import records
from tools.pipeline.remote.shared import RECORD
from tools.pipeline.sign import keys, statements

RAN, TAKEN = "run here", "cache 127.0.0.1"


def step(text: str = "made", name: str = "step") -> Step:
    return shell(f"echo {text} >/out/out; echo '#!/bin/sh' >/out/tool; chmod +x /out/tool", name=name,
                 outputs=("out", "tool"))  # fmt: skip


def chain() -> tuple[Step, Step]:
    first = step("one", "first")
    return first, shell("cat /inputs/one >/out/out; echo two >>/out/out", name="second",
                        inputs={"/inputs/one": first.output("out")})  # fmt: skip


# ── taking and sending ──


def test_an_empty_machine_takes_what_another_has_built(
    machine: Machines, server: Server, repository_name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs there, and no tool tree is needed; who does not list the builder runs everything itself."""
    first, second = chain()
    ci = machine("ci", pushes="ci")
    assert ci.build(first, second) == {"first": RAN, "second": RAN}
    tags = server.tags(repository_name)
    assert sorted(tag[:5] for tag in tags) == ["claim"] * 2 + ["runs-"] * 2 + ["step-"] * 2 + ["tree-"]
    assert "sent: 3," in capfd.readouterr().err

    other = machine("other")
    other.workshop.tools = replace(other.tools, path=Path("/nonexistent"))
    found = other.build(first, second)
    assert all(origin.startswith(TAKEN) for origin in found.values())
    assert (other.output(second), other.workshop.checked) == (b"one\ntwo\n", [])
    assert not (other.workshop.root / "build/made").exists()
    assert "results found: 2," in capfd.readouterr().err
    # Another process of the same machine asks nobody.
    assert machine("other").engine().is_current(second)

    stranger = machine("stranger", lists=("alice",))
    assert stranger.build(first, second) == {"first": RAN, "second": RAN}


def test_modes_come_with_the_bytes(machine: Machines) -> None:
    machine("ci", pushes="ci").build(step())
    other = machine("other")
    use = shell("/inputs/tool && test ! -x /inputs/out && cp /inputs/out /out/out", name="use",
                inputs={"/inputs/tool": step().output("tool"), "/inputs/out": step().output("out")})  # fmt: skip
    found = other.build(step(), use)
    assert found["step"].startswith(TAKEN)
    assert found["use"] == RAN
    assert other.output(use) == b"made\n"


def test_a_miss_runs_and_is_sent(machine: Machines, server: Server, repository_name: str) -> None:
    """What others have made is never sent under this user's name."""
    first, second = chain()
    machine("ci", pushes="ci").build(first)
    alice = machine("alice", lists=("ci",), pushes="alice")
    assert alice.build(first, second)["second"] == RAN
    mine = keys.fingerprint(keys.load_public(alice.keys / "alice.pub"))
    suffix = base64.b64decode(mine).hex()[:32]
    engine = alice.engine()
    tags = {tag for tag in server.tags(repository_name) if tag.endswith(suffix)}
    assert tags == {f"step-{engine.key(second)}-{suffix}", f"tree-{kit.TREE_KEY}-{suffix}"}


def test_what_was_made_before_there_was_a_cache_is_sent(
    machine: Machines, server: Server, repository_name: str
) -> None:
    """With the digest of the tree that it ran on: who takes it needs that, too."""
    early = machine("early", pushes="ci")
    early.workshop.engine().ensure(step())
    other = early.engine(checkout="another checkout")
    other.ensure(step())
    kit.shared(other).end()
    assert not other.made("step").exists()
    assert [tag[:4] for tag in server.tags(repository_name)] == ["step", "tree"]


def test_what_is_there_is_not_sent_again(machine: Machines, capfd: pytest.CaptureFixture[str]) -> None:
    """By the same key nothing at all, by another only the record: the bytes are there."""
    machine("ci", pushes="ci").build(step())
    for name, sent in (("ci", None), ("alice", "sent: 2, 0 B")):
        capfd.readouterr()
        assert machine(f"{name} again", lists=("mallory",), pushes=name).build(step())["step"] == RAN
        said = capfd.readouterr().err
        assert sent in said if sent else " sent" not in said
    # Two builders have said it, and each of them is enough.
    for name in ("ci", "alice"):
        assert machine(f"lists {name}", lists=(name,)).build(step())["step"].startswith(TAKEN)


def test_a_builder_that_is_not_listed_any_more(machine: Machines) -> None:
    """What was taken while he was listed does not count either."""
    machine("ci", pushes="ci").build(step())
    other = machine("other", lists=("ci", "alice"))
    assert other.build(step())["step"].startswith(TAKEN)
    other.lists = ("alice",)
    assert other.engine().find(step()) is None
    assert other.build(step())["step"] == RAN


# ── what is not believed ──


class Forger:
    """Whoever may write to the registry: puts a record in the place of the good one."""

    def __init__(self, machine: Machines, place: str) -> None:
        self.ci = machine("ci", pushes="ci")
        self.ci.build(step(), step("other", "other"))
        self.engine = self.ci.engine()
        self.registry = kit.registry(place)
        self.keys = self.ci.keys
        self.fingerprint = keys.fingerprint(keys.load_public(self.keys / "ci.pub"))
        self.suffix = base64.b64decode(self.fingerprint).hex()[:32]
        self.tag = f"step-{self.engine.key(step())}-{self.suffix}"
        self.good = self.record(self.tag)
        self.of_another = self.record(f"step-{self.engine.key(step('other', 'other'))}-{self.suffix}")

    def wanted(self) -> Wanted:
        return others.wanted(step(), self.result().key, seconds=None)

    def result(self) -> Result:
        return self.engine.ensure(step())

    def record(self, tag: str) -> bytes:
        return base64.b64decode(kit.manifest(self.registry, tag)["annotations"][RECORD])

    def put(self, record: bytes | None) -> None:
        old = kit.manifest(self.registry, self.tag)
        layers = [oci.descriptor_of(entry, where="") for entry in old["layers"]]
        annotations = {} if record is None else {RECORD: base64.b64encode(record).decode()}
        self.registry.manifest(oci.manifest("application/vnd.test", layers, annotations=annotations), self.tag)

    def signed(self, by: str, change: Callable[[dict[str, Any]], object]) -> bytes:
        """The record with another predicate, signed by somebody."""
        payload = json.loads(base64.b64decode(json.loads(self.good)["dsseEnvelope"]["payload"]))
        change(payload)
        return statements.bundle(oci.encode(payload), keys.load(f"{by}.key", root=self.keys))


def _says(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda payload: payload["predicate"].update(changes)


def _spoil(record: bytes) -> bytes:
    """Other outputs under the old signature."""
    bundle = json.loads(record)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"seconds":', b'"seconds":1')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return oci.encode(bundle)


FORGED: dict[str, tuple[Callable[[Forger], bytes | None], str]] = {
    "unsigned": (lambda _: None, "is not signed"),
    "no bundle": (lambda _: b"{}", "is no signed statement"),
    "nothing": (lambda _: b"", "is no signed statement"),
    "by nobody who is listed": (lambda f: f.signed("mallory", _says()), "is not signed by who should have"),
    "by another builder who is listed": (lambda f: f.signed("alice", _says()), "is not signed by who should have"),
    "changed after it was signed": (lambda f: _spoil(f.good), "is not signed by who should have"),
    "of another step": (lambda f: f.of_another, "is of another key"),
    "of another kind": (lambda f: f.signed("ci", _says(kind=TREE)), "is of another kind"),
    "of another engine": (lambda f: f.signed("ci", _says(engine=0)), "is of another engine version"),
    "in another's name": (lambda f: f.signed("ci", _says(builder="alice")), "is of another builder"),
    "an endorsement": (lambda f: f.signed("ci", lambda p: p.update(predicateType="urn:x")), "about something else"),
    "too many outputs": (
        lambda f: f.signed("ci", lambda p: p["predicate"]["outputs"].update(more=p["predicate"]["outputs"]["out"])),
        "names other outputs",
    ),
    "an output less": (lambda f: f.signed("ci", lambda p: p["predicate"]["outputs"].pop("out")), "names other outputs"),
    "an output elsewhere": (
        lambda f: f.signed("ci", lambda p: p["predicate"]["outputs"].update({"../out": {}})),
        "of a form that is not known",
    ),
    "no outputs": (lambda f: f.signed("ci", _says(outputs=[])), "of a form that is not known"),
    "an endless output": (
        lambda f: f.signed("ci", lambda p: p["predicate"]["outputs"]["out"].update(size=1 << 60)),
        "of a form that is not known",
    ),
    "no time": (lambda f: f.signed("ci", _says(seconds="now")), "of a form that is not known"),
    "no number": (lambda f: f.signed("ci", _says(seconds=float("nan"))), "of a form that is not known"),
    "for ever": (lambda f: f.signed("ci", _says(seconds=float("inf"))), "of a form that is not known"),
    "longer than a number": (lambda f: f.signed("ci", _says(seconds=10**400)), "of a form that is not known"),
    "a digest that is a number": (
        lambda f: f.signed("ci", lambda p: p["predicate"]["outputs"]["out"].update(sha256=10**63)),
        "of a form that is not known",
    ),
    "too large": (lambda f: f.good + b" " * records.RECORD_MAX, "is too large"),
}


def test_forged_records(machine: Machines, place: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Each is ignored and said; the good record in the same place is taken."""
    forger = Forger(machine, place)
    wanted = forger.wanted()
    for number, (name, (forge, why)) in enumerate(FORGED.items()):
        forger.put(forge(forger))
        capfd.readouterr()
        remote = kit.shared(machine(f"m{number}", lists=("ci", "alice")).engine())
        assert remote.find(wanted) is None, name
        said = capfd.readouterr().err
        assert why in said, said
        assert said.count("ignored") == 1, said
    assert machine("builds", lists=("ci", "alice")).build(step())["step"] == RAN, "the build goes on"
    forger.put(forger.good)
    assert kit.shared(machine("last").engine()).find(wanted) == replace(
        forger.result(), origin=Origin(how=How.CACHE, place=place, builder=forger.fingerprint)
    )


def test_a_reason_is_said_once(machine: Machines, place: str, capfd: pytest.CaptureFixture[str]) -> None:
    steps = [step(str(number), f"step{number}") for number in range(3)]
    ci = machine("ci", pushes="ci")
    ci.build(*steps)
    there, engine = kit.registry(place), ci.engine()
    suffix = base64.b64decode(keys.fingerprint(keys.load_public(ci.keys / "ci.pub"))).hex()[:32]
    for one in steps:
        tag = f"step-{engine.key(one)}-{suffix}"
        layers = [oci.descriptor_of(entry, where="") for entry in kit.manifest(there, tag)["layers"]]
        there.manifest(oci.manifest("application/vnd.test", layers), tag)
    capfd.readouterr()
    assert set(machine("other").build(*steps).values()) == {RAN}
    assert capfd.readouterr().err.count("is not signed: ignored") == 1


# ── bytes ──


@pytest.mark.parametrize("change", ["none", "bit", "longer", "shorter", "gone"])
def test_blobs_are_compared_with_the_record(
    machine: Machines, server: Server, change: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever the registry's disk holds: the step is made here then, with the same bytes."""
    one = shell(f"echo {change} >/out/out")  # another blob for each case: the registry is one
    ci = machine("ci", pushes="ci")
    ci.build(one)
    sha256 = ci.engine().ensure(one).outputs["out"].digest.sha256
    blob = server.folder / f"data/docker/registry/v2/blobs/sha256/{sha256[:2]}/{sha256}/data"
    good = blob.read_bytes()
    bad = {"none": good, "bit": b"\0" + good[1:], "longer": good * 2, "shorter": good[:2]}.get(change)
    blob.unlink() if bad is None else blob.write_bytes(bad)
    other = machine("other")
    capfd.readouterr()
    assert other.build(one)["step"].startswith(TAKEN), "the record is good"
    assert other.output(one) == f"{change}\n".encode()
    said = capfd.readouterr().err
    assert ("making it here" in said) == (change != "none")
    assert other.workshop.checked == ([] if change == "none" else ["python"])
    if change == "bit":
        assert "sends other bytes" in said
    assert not list((other.workshop.cache / "partial").glob("*"))
