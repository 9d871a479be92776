# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Builders that share results through the action cache: by signed records, and by nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote.reapi.conftest import Away, Start
from tests.pipeline.remote.reapi.liar import Liar
from tests.pipeline.remote.reapi.test_executed import made
from tests.pipeline.remote.reapi.test_faults import notes
from tools.pipeline.engine import graph
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Step
from tools.pipeline.engine.store.origin import How
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Signer

Machine = Callable[..., Away]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def signers(tmp_path: Path) -> dict[str, Signer]:
    """Keys of two builders."""
    found = {}
    for name in ("ci", "eve"):
        pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = tmp_path / f"{name}.key"
        path.touch(0o600)
        path.write_bytes(pem)
        found[name] = keys.load(str(path), root=tmp_path)
    return found


def pushes(away: Away, where: str, signer: Signer) -> Engine:
    return away.engine(where, execute=False, signer=lambda: signer)


def takes(away: Away, where: str, *signers: Signer) -> Engine:
    listed = {keys.fingerprint(signer.public): signer.public for signer in signers}
    names = {keys.fingerprint(signer.public): f"builder {number}" for number, signer in enumerate(signers)}
    return away.engine(where, execute=False, builders=listed, name=names.__getitem__)


def pushed(machine: Machine, where: str, signer: Signer, step: Step, *, name: str = "pushes") -> None:
    away = machine(name)
    assert pushes(away, where, signer).ensure(step).origin.ours
    away.service.end()


@pytest.mark.parametrize("script", ["echo made >/out/out; chmod 755 /out/out", "true >/out/out"], ids=["made", "empty"])
def test_a_result_is_taken_from_who_is_listed(
    machine: Machine, start: Start, signers: dict[str, Signer], capfd: Said, *, script: str
) -> None:
    where, step = start().address, shell(script)
    pushed(machine, where, signers["ci"], step)
    assert "results sent: 1;" in capfd.readouterr().err
    engine = takes(machine("takes"), where, signers["ci"])
    found = engine.ensure(step)
    assert (found.origin.how, found.origin.builder) == (How.CACHE, keys.fingerprint(signers["ci"].public))
    assert graph.origin(engine, step) == f"cache {where}, signed by builder 0"
    assert not engine.log(step).exists(), "it has not run here"
    here = machine("here").workshop.engine()
    assert found.outputs == here.ensure(step).outputs
    assert made(engine, step) == made(here, step)
    # Another's key, or nobody's: it runs.
    for name, listed in (("other", [signers["eve"]]), ("nobody", [])):
        assert takes(machine(name), where, *listed).ensure(step).origin.ours
    assert not notes(capfd)


def test_what_is_there_is_not_sent_again(
    machine: Machine, start: Start, signers: dict[str, Signer], capfd: Said
) -> None:
    where, step = start().address, shell("echo made >/out/out")
    pushed(machine, where, signers["ci"], step)
    pushed(machine, where, signers["ci"], step, name="again")
    assert capfd.readouterr().err.count("results sent") == 1


def test_another_builder_overwrites_nothing(machine: Machine, start: Start, signers: dict[str, Signer]) -> None:
    where, step = start().address, shell("echo made >/out/out")
    for name in ("ci", "eve"):
        pushed(machine, where, signers[name], step, name=name)
    for name in ("ci", "eve"):
        assert takes(machine(f"takes {name}"), where, signers[name]).ensure(step).origin.how is How.CACHE


def test_records_in_anothers_place_do_not_count(
    machine: Machine, start: Start, signers: dict[str, Signer], liar: Callable[..., Liar], capfd: Said
) -> None:
    """Whoever may write to the action cache can serve a genuine record for another step."""
    where, kept = start().address, list[bytes]()
    first, second = shell("echo first >/out/out", name="first"), shell("echo second >/out/out", name="second")
    for step in (first, second):
        pushed(machine, where, signers["ci"], step, name=step.name)

    def lie(method: str, answer: bytes) -> bytes:
        if method == "GetActionResult":
            kept.append(answer)
            return kept[0]
        return answer

    engine = takes(machine("takes"), liar(where, lie).address, signers["ci"])
    assert engine.ensure(first).origin.how is How.CACHE
    capfd.readouterr()
    assert engine.ensure(second).origin.ours
    assert made(engine, second) == b"second\n"
    (said,) = notes(capfd)
    assert "a record for the second is of another key: ignored" in said


def unsigned(answer: reapi.ActionResult) -> None:
    del answer.output_files[-1]


def without_bytes(answer: reapi.ActionResult) -> None:
    answer.output_files[-1].digest.hash = "0" * 64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, ""),
        (unsigned, "has no record among its outputs: ignored"),
        (without_bytes, "names bytes that are not there: ignored"),
    ],
)
def test_a_record_that_is_none(
    machine: Machine, start: Start, signers: dict[str, Signer], liar: Callable[..., Liar], capfd: Said, *,
    change: Callable[[reapi.ActionResult], None] | None, says: str,
) -> None:  # fmt: skip
    where, step = start().address, shell("echo made >/out/out")
    pushed(machine, where, signers["ci"], step)

    def lie(method: str, answer: bytes) -> bytes:
        result = reapi.ActionResult()
        if method != "GetActionResult" or change is None:
            return answer
        result.ParseFromString(answer)
        change(result)
        return result.SerializeToString()

    result = takes(machine("takes"), liar(where, lie).address, signers["ci"]).ensure(step)
    assert result.origin.ours == (change is not None)
    said = notes(capfd)
    assert len(said) == (change is not None)
    assert says in "".join(said)
