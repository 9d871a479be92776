# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What was executed elsewhere counts once steps chosen by chance gave the same here; a lie ends the build."""

import hashlib
from collections import Counter
from collections.abc import Callable

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.google.longrunning import operations_pb2

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote.reapi.conftest import Away, Start
from tests.pipeline.remote.reapi.liar import Liar
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.engine.store.origin import How
from tools.pipeline.remote import sampling
from tools.pipeline.remote.reapi.blobs import Blobs
from tools.pipeline.remote.reapi.connection import Limit

Machine = Callable[..., Away]
Lying = Callable[..., Liar]


def chain(count: int) -> list[Step]:
    steps = [shell("echo 0 >/out/out", name="s0")]
    for number in range(1, count):
        before = steps[-1].output("out")
        steps.append(shell(f"cat /inputs/x >/out/out; echo {number} >>/out/out", name=f"s{number}",
                           inputs={"/inputs/x": before}))  # fmt: skip
    return steps


def origins(engine: Engine, steps: list[Step]) -> Counter[str]:
    return Counter(str(engine.ensure(step).origin.how) for step in steps)


def changed(answer: bytes, change: Callable[[reapi.ActionResult], None], *, cached: bool = False) -> bytes:
    """The result of an execution, changed."""
    operation = operations_pb2.Operation.FromString(answer)
    response = reapi.ExecuteResponse()
    if operation.done and operation.response.Unpack(response):
        change(response.result)
        response.cached_result = response.cached_result or cached
        operation.response.Pack(response)
    return operation.SerializeToString()


@pytest.mark.parametrize(("share", "again"), [(0.0, 1), (0.34, 2), (1.0, 4)])
def test_a_share_is_run_here_and_never_fewer_than_one(machine: Machine, start: Start, share: float, again: int) -> None:
    engine, steps = machine().engine(start().address, share=share), chain(4)
    engine.ensure(steps[-1])
    assert origins(engine, steps) == {"executed": 4}
    sampling.settle(engine, steps)
    assert origins(engine, steps) == {"run": again, **({"compared": 4 - again} if again < 4 else {})}
    # Once: what has been compared is not run again by the next build.
    sampling.settle(engine, steps)
    assert origins(engine, steps)["run"] == again


def test_whoever_executes_cannot_know_which(machine: Machine) -> None:
    """Each is chosen now and then, however often the same are asked for."""
    steps = chain(4)
    drawn = Counter(step.name for _ in range(200) for step in sampling.choose(steps, 0.5))
    assert sorted(drawn) == ["s0", "s1", "s2", "s3"]
    assert sum(drawn.values()) == 400


def test_until_then_nothing_is_published(machine: Machine, start: Start) -> None:
    engine, steps = machine().engine(start().address), chain(2)
    engine.ensure(steps[-1])
    with pytest.raises(
        BuildError, match=r"^s0 \(the s0\): was executed at grpc://.* not compared yet, so nothing is pub"
    ):
        sampling.refuse(engine, steps, what="published")
    sampling.settle(engine, steps)
    sampling.refuse(engine, steps, what="published")


def test_the_next_build_knows_that_nothing_was_compared(machine: Machine, start: Start) -> None:
    """It is noted with the result: whoever is interrupted in between has gained nothing."""
    away, steps, at = machine(), chain(2), start().address
    away.engine(at).ensure(steps[-1])
    for checkout in ("checkout", "another"):
        later = away.engine(at, checkout=checkout)
        with pytest.raises(BuildError, match="not compared yet"):
            sampling.refuse(later, steps, what="published")


def planted(away: Away, data: bytes) -> Digest:
    """Bytes that the service has, which is what it needs for a convincing lie."""
    digest = Digest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    Blobs(away.service.connection).send({digest}, {digest: data}, limit=Limit.of(60))
    return digest


@pytest.mark.parametrize("lies", [False, True], ids=["honest", "lying"])
def test_other_bytes_end_the_build(machine: Machine, start: Start, liar: Lying, lies: bool) -> None:
    """An answer in the right form, with bytes that the service has: nothing but running the step shows it."""
    away, evil = machine(), [Digest.of(b"")]

    def lie(method: str, answer: bytes) -> bytes:
        def change(result: reapi.ActionResult) -> None:
            result.output_files[0].digest.hash, result.output_files[0].digest.size_bytes = evil[0].sha256, evil[0].size
            result.execution_metadata.worker = "worker-7"

        return changed(answer, change) if lies and method == "Execute" else answer

    between = liar(start().address, lie)
    engine, steps = away.engine(between.address), chain(1)
    evil[0] = planted(away, b"evil\n")
    claimed = engine.ensure(steps[0])
    assert claimed.origin.how is How.EXECUTED
    assert (claimed.outputs["out"].digest == evil[0]) == lies
    if not lies:
        sampling.settle(engine, steps)
        return
    here = hashlib.sha256(b"0\n").hexdigest()[:16]
    with pytest.raises(BuildError) as caught:
        sampling.settle(engine, steps)
    assert str(caught.value).startswith(f"s0 (the s0): {between.address} (worker worker-7) says that it gives out ")
    assert f"{evil[0].sha256[:16]}…; here it gives out {here}…; nothing that was executed there counts" in str(
        caught.value
    )
    # What was made here is what counts, and the lie is forgotten by the cache, too.
    later = away.engine(between.address)
    assert later.ensure(steps[0]).origin.ours
    assert later.ensure(steps[0]).outputs["out"].digest == Digest.of(b"0\n")


@pytest.mark.parametrize("alone", [False, True], ids=["chain", "independent"])
def test_after_a_lie_nothing_of_that_build_counts(machine: Machine, start: Start, liar: Lying, *, alone: bool) -> None:
    away, evil = machine(), [Digest.of(b"")]

    def lie(method: str, answer: bytes) -> bytes:
        def change(result: reapi.ActionResult) -> None:
            result.output_files[0].digest.hash, result.output_files[0].digest.size_bytes = evil[0].sha256, evil[0].size

        return changed(answer, change) if method == "Execute" else answer

    engine = away.engine(liar(start().address, lie).address)
    steps = [shell(f"echo {number} >/out/out", name=f"a{number}") for number in range(3)] if alone else chain(3)
    evil[0] = planted(away, b"evil\n")
    for step in steps:
        assert engine.ensure(step).origin.how is How.EXECUTED
    with pytest.raises(BuildError, match="here it gives"):
        sampling.settle(engine, steps)
    assert sum(engine.find(step) is not None for step in steps) <= 1, "the one that was run here"


@pytest.mark.parametrize("lies", [False, True], ids=["honest", "lying"])
def test_a_lie_about_bytes_that_are_nowhere(machine: Machine, start: Start, liar: Lying, lies: bool) -> None:
    """The next step wants them, so it is found out before anything is compared; it is no fault to go on after."""

    def lie(method: str, answer: bytes) -> bytes:
        def change(result: reapi.ActionResult) -> None:
            result.output_files[0].digest.hash = hashlib.sha256(b"x\n").hexdigest()

        return changed(answer, change) if lies and method == "Execute" else answer

    engine, (first, second) = machine().engine(liar(start().address, lie).address), chain(2)
    assert engine.ensure(first).origin.how is How.EXECUTED
    if not lies:
        assert engine.ensure(second).origin.how is How.EXECUTED
        return
    with pytest.raises(BuildError, match="the s0: made another out from the same inputs than executed at grpc://"):
        engine.ensure(second)


def test_the_result_of_another_step(machine: Machine, start: Start, liar: Lying) -> None:
    """Under the same names it is found out by comparing; under others at once, and the step runs here."""
    away, kept = machine(), list[bytes]()

    def lie(method: str, answer: bytes) -> bytes:
        if method == "Execute" and operations_pb2.Operation.FromString(answer).done:
            kept.append(answer)
            return kept[0]
        return answer

    engine = away.engine(liar(start().address, lie).address)
    first, second = shell("echo first >/out/out", name="first"), shell("echo second >/out/out", name="second")
    third = shell("echo third >/out/other", name="third", outputs=("other",))
    for step in (first, second):
        assert engine.ensure(step).origin.how is How.EXECUTED
    assert engine.ensure(third).origin.ours
    sampling.settle(engine, [first])
    with pytest.raises(BuildError, match=r"^second \(the second\): "):
        sampling.settle(engine, [second])
