# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Another client of the same service, who may write to its action cache and its store as we may."""

from collections.abc import Callable

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote.reapi.conftest import Away, Start
from tests.pipeline.remote.reapi.liar import Liar
from tests.pipeline.remote.reapi.test_action_cache import pushed, signers, takes
from tests.pipeline.remote.reapi.test_compared import changed
from tests.pipeline.remote.reapi.test_executed import made
from tests.pipeline.remote.reapi.test_faults import notes
from tools.pipeline.engine import others
from tools.pipeline.engine.remote import TREE, Wanted
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.engine.store.origin import How
from tools.pipeline.remote import records
from tools.pipeline.remote.reapi import action, action_cache, tree
from tools.pipeline.remote.reapi.blobs import Blobs, Source, message
from tools.pipeline.remote.reapi.connection import Limit
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Signer

__all__ = ["signers"]

Machine = Callable[..., Away]
Said = pytest.CaptureFixture[str]
EVIL = b"evil\n"
STEP = shell("echo made >/out/out")


class Mallory:
    """A client with a checkout of his own: so he knows the keys, the actions and the names of builders."""

    def __init__(self, away: Away, where: str) -> None:
        self._engine = away.engine(where)
        self._service = away.service
        self._blobs = Blobs(away.service.connection)

    def wanted(self, step: Step) -> Wanted:
        key = self._engine.key(step)
        assert key is not None
        return others.wanted(step, key, seconds=None)

    def puts(self, digest: Digest, result: reapi.ActionResult, blobs: dict[Digest, Source]) -> None:
        limit = Limit.of(60)
        self._blobs.send(self._blobs.missing(blobs, limit=limit), blobs, limit=limit)
        request = reapi.UpdateActionResultRequest(action_digest=message(digest), action_result=result)
        services.ActionCacheStub(self._service.connection.channel).UpdateActionResult(request)

    def poisons(self, step: Step) -> None:
        """The action itself, as if a worker had run it."""
        work = self._engine._work(step, self.wanted(step))
        root = tree.with_inputs(self._service._tree(work), work.inputs)
        described = action.describe(step, root=root.digest, platform={})
        result = reapi.ActionResult()
        result.output_files.add(path="out/out", digest=message(Digest.of(EVIL)))
        result.execution_metadata.worker = "one of the service's"
        self.puts(described.digest, result, {Digest.of(EVIL): EVIL, **root.blobs, **described.blobs})

    def replaces(self, wanted: Wanted, signer: Signer, result: reapi.ActionResult, *blobs: bytes) -> None:
        """A builder's entry."""
        digest, told = action_cache._entry(wanted, keys.fingerprint(signer.public))
        self.puts(digest, result, {**told, **{Digest.of(data): data for data in blobs}})


@pytest.mark.parametrize("believed", [False, True])
def test_what_another_client_says_of_a_step(machine: Machine, start: Start, *, believed: bool) -> None:
    """He is not the service: what its action cache has is only taken from a service of which the user says so."""
    where = start().address
    Mallory(machine("mallory"), where).poisons(STEP)
    engine = machine("victim").engine(where, cached=believed)
    result = engine.ensure(STEP)
    assert result.origin.how is How.EXECUTED
    assert made(engine, STEP) == (EVIL if believed else b"made\n")
    assert (result.origin.builder == "one of the service's") == believed


def test_a_service_that_gives_it_all_the_same(
    machine: Machine, start: Start, liar: Callable[..., Liar], capfd: Said
) -> None:
    """One that does not run what it is asked to run: the step runs here."""

    def lie(method: str, answer: bytes) -> bytes:
        return changed(answer, lambda _: None, cached=True) if method == "Execute" else answer

    where = liar(start().address, lie).address
    assert machine("believes").engine(where, cached=True).ensure(STEP).origin.how is How.EXECUTED
    assert not notes(capfd)
    assert machine("does not").engine(where).ensure(STEP).origin.ours
    assert "gives what its action cache has in place of a run" in notes(capfd)[0]


def no_record(result: reapi.ActionResult) -> None:
    result.output_files.add(path="out/out", digest=message(Digest.of(EVIL)))


def foreign_bytes(result: reapi.ActionResult) -> None:
    result.output_files.add(path="record", digest=message(Digest.of(EVIL)))


def endless(result: reapi.ActionResult) -> None:
    result.output_files.add(path="record", digest=message(Digest(sha256="1" * 64, size=1 << 40)))


def link(result: reapi.ActionResult) -> None:
    result.output_symlinks.add(path="record", target="/etc/passwd")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (no_record, "has no record among its outputs"),
        (foreign_bytes, "is no signed statement"),
        (endless, "is too large"),
        (link, "has no record among its outputs"),
    ],
)
def test_an_entry_in_one_builders_place_hides_no_other(
    machine: Machine, start: Start, signers: dict[str, Signer], liar: Callable[..., Liar], capfd: Said, *,
    change: Callable[[reapi.ActionResult], None], says: str,
) -> None:  # fmt: skip
    """And it is said; nor does it end the use of the service, however many there are."""
    where = start().address
    pushed(machine, where, signers["eve"], STEP)
    more = [shell(f"echo {number} >/out/out", name=f"s{number}") for number in range(3)]
    mallory, marked, poisoned = Mallory(machine("mallory"), where), reapi.ActionResult(), reapi.ActionResult()
    marked.output_files.add(path="marked", digest=message(Digest.of(EVIL)))
    change(poisoned)
    for step in (*more, STEP):
        mallory.replaces(mallory.wanted(step), signers["ci"], marked, EVIL)

    def lie(method: str, answer: bytes) -> bytes:
        """What a service that keeps entries without their bytes says of them."""
        result = reapi.ActionResult()
        if method == "GetActionResult":
            result.ParseFromString(answer)
            if result.output_files[0].path == "marked":
                return poisoned.SerializeToString()
        return answer

    engine = takes(machine("takes"), liar(where, lie).address, signers["ci"], signers["eve"])
    capfd.readouterr()
    for step in more:
        assert engine.ensure(step).origin.ours
    assert engine.ensure(STEP).origin.builder == keys.fingerprint(signers["eve"].public)
    (said,) = notes(capfd)
    assert f"{says}: ignored" in said


def test_a_record_of_another_kind(machine: Machine, start: Start, signers: dict[str, Signer], capfd: Said) -> None:
    """A tool tree's, signed by the same builder, in the place of a step's that has the same key."""
    where = start().address
    away = machine("pushes")
    pushed(machine, where, signers["ci"], STEP)
    mallory = Mallory(away, where)
    wanted = mallory.wanted(STEP)
    result = machine("here").workshop.engine().ensure(STEP)
    for kind, says in ((TREE, "is of another kind: ignored"), ("step", "")):
        record = records.write(Wanted(kind=kind, key=wanted.key, outputs=("out",), name="", title=""), result,
                               signers["ci"])  # fmt: skip
        entry = reapi.ActionResult()
        entry.output_files.add(path="record", digest=message(Digest.of(record)))
        mallory.replaces(wanted, signers["ci"], entry, record)
        capfd.readouterr()
        engine = takes(machine(f"takes {kind}"), where, signers["ci"])
        assert engine.ensure(STEP).origin.ours == bool(says)
        assert says in "".join(notes(capfd))


def test_a_record_whose_outputs_have_gone(
    machine: Machine, start: Start, signers: dict[str, Signer], liar: Callable[..., Liar]
) -> None:
    """It is nothing to wait for: another builder's is taken, or the step runs here."""
    where, gone = start().address, [False]
    pushed(machine, where, signers["ci"], STEP)
    digest = machine("here").workshop.engine().ensure(STEP).outputs["out"].digest

    def lie(method: str, answer: bytes) -> bytes:
        if method == "FindMissingBlobs" and gone[0]:
            return reapi.FindMissingBlobsResponse(missing_blob_digests=[message(digest)]).SerializeToString()
        return answer

    at = liar(where, lie).address
    assert takes(machine("before"), at, signers["ci"]).ensure(STEP).origin.how is How.CACHE
    gone[0] = True
    assert takes(machine("after"), at, signers["ci"]).ensure(STEP).origin.ours


def test_a_builder_that_is_not_listed_any_more(machine: Machine, start: Start, signers: dict[str, Signer]) -> None:
    """What was taken while he was listed does not count either."""
    where = start().address
    pushed(machine, where, signers["ci"], STEP)
    away = machine("takes")
    assert takes(away, where, signers["ci"]).ensure(STEP).origin.how is How.CACHE
    assert takes(away, where, signers["ci"]).find(STEP) is not None
    later = takes(away, where, signers["eve"])
    assert later.find(STEP) is None
    assert later.ensure(STEP).origin.ours
