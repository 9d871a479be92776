# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Services that die, fill up, are slow or lie: the build goes on without them, and says so once."""

import hashlib
import threading
import time
from collections.abc import Callable

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as streams

from tests.loopback import Between, Relay, Slow, to
from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote.reapi.conftest import Away, Start
from tests.pipeline.remote.reapi.liar import Liar
from tests.pipeline.remote.reapi.test_executed import made
from tests.publish.kit import certificates
from tools.pipeline.engine.step import Literal
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.engine.store.origin import How
from tools.pipeline.remote.reapi import connection
from tools.pipeline.remote.reapi.blobs import Blobs
from tools.pipeline.remote.reapi.connection import Limit, RemoteError

Machine = Callable[..., Away]
Said = pytest.CaptureFixture[str]


def notes(said: Said) -> list[str]:
    return [line for line in said.readouterr().err.splitlines() if line.startswith("   note: ")]


def test_killed_while_a_step_runs(machine: Machine, start: Start, capfd: Said) -> None:
    """The step then runs here, and so do the others, without waiting."""
    casd = start()
    away = machine()
    engine = away.engine(casd.address)
    assert engine.ensure(shell("echo before >/out/out", name="before")).origin.how is How.EXECUTED
    capfd.readouterr()
    # When it runs there, and not before.
    slow = shell("echo slow >/out/out; [ $(cat /proc/sys/kernel/hostname) = sandbox ] || sleep 60", name="slow")
    killer = threading.Timer(2.0, casd.kill)
    killer.start()
    assert engine.ensure(slow).origin.ours
    killer.join()
    assert engine.ensure(shell("echo after >/out/out", name="after")).origin.ours
    said = notes(capfd)
    assert len(said) == 1, said
    assert f"{casd.address}: unavailable" in said[0]
    assert said[0].endswith("; the build goes on without it")
    assert made(engine, slow) == b"slow\n"


def test_killed_and_started_again(machine: Machine, start: Start, capfd: Said) -> None:
    """It has forgotten what it was at; the step is asked for again, and runs there."""
    casd = start()
    engine = machine().engine(casd.address)
    step = shell("sleep 3; echo made >/out/out", name="slow")

    def restart() -> None:
        casd.kill()
        casd.start()

    killer = threading.Timer(2.0, restart)
    killer.start()
    assert engine.ensure(step).origin.how is How.EXECUTED
    killer.join()
    assert not notes(capfd)


@pytest.mark.parametrize(("quota", "there"), [("2G", True), ("16M", False)])
def test_out_of_quota(machine: Machine, start: Start, capfd: Said, quota: str, there: bool) -> None:
    """What a step needs is evicted before it runs: "Error staging", or no room for it."""
    engine = machine().engine(start(quota=quota).address, patience=15.0)
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(24 << 15))
    step = shell("wc -c </inputs/x >/out/out", inputs={"/inputs/x": Literal(data=data)})
    assert (engine.ensure(step).origin.how is How.EXECUTED) == there
    assert bool(notes(capfd)) != there
    assert made(engine, step).strip() == str(len(data)).encode()


@pytest.mark.parametrize(("rate", "there"), [(1 << 40, True), (100_000, False)])
def test_slow(machine: Machine, start: Start, capfd: Said, *, rate: int, there: bool) -> None:
    """No longer than it may take; what was sent by then need not be sent again."""
    between = Slow(start().port, rate=rate)
    away = machine()
    step = shell("echo made >/out/out")
    # How long it takes is known.
    away.workshop.engine().ensure(step)
    changed = shell("echo made again >/out/out")
    engine = away.engine(f"grpc://{between.host}", patience=1.0)
    assert (engine.ensure(changed).origin.how is How.EXECUTED) == there
    said = notes(capfd)
    assert bool(said) != there, said
    assert made(engine, changed) == b"made again\n"
    between.close()


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_a_broken_connection_goes_on(machine: Machine, start: Start, capfd: Said, down: bool) -> None:
    """A stream goes on where it was, in either direction."""
    between = Between(start().port, after=24 << 20, down=down)
    engine = machine().engine(f"grpc://{between.host}")
    step = shell(f"head -c {16 << 20} /inputs/x >/out/out; cat /inputs/x >>/out/out",
                 inputs={"/inputs/x": Literal(data=bytes(20 << 20))})  # fmt: skip
    assert engine.ensure(step).origin.how is How.EXECUTED
    assert made(engine, step) == bytes(36 << 20)
    assert between.cuts == 1
    assert engine.find(step) is not None
    assert not notes(capfd)
    between.close()


@pytest.mark.parametrize(("held", "there"), [(1.0, True), (1000.0, False)])
def test_connections_that_break_again_and_again(
    machine: Machine, start: Start, capfd: Said, monkeypatch: pytest.MonkeyPatch, *, held: float, there: bool
) -> None:
    """A step of an hour outlives many of them, if each held on for a while."""
    monkeypatch.setattr(connection, "HELD", held)
    with Relay(to(start().port)) as between:
        engine = machine().engine(f"grpc://{between.host}")
        engine.ensure(shell("echo first >/out/out", name="first"))
        over = threading.Event()

        def cuts() -> None:
            while not over.wait(2.5):
                between.cut()

        cutter = threading.Thread(target=cuts)
        cutter.start()
        try:
            step = shell("echo slow >/out/out; [ $(cat /proc/sys/kernel/hostname) = sandbox ] || sleep 16")
            assert (engine.ensure(step).origin.how is How.EXECUTED) is there
        finally:
            over.set()
            cutter.join()
    assert between.cuts >= 3
    assert "chttp2" not in capfd.readouterr().err, "gRPC's own lines"


def test_a_service_that_is_not_there(machine: Machine, capfd: Said) -> None:
    engine = machine().engine("grpc://127.0.0.1:1")
    for number in range(3):
        assert engine.ensure(shell(f"echo {number} >/out/out", name=f"s{number}")).origin.ours
    said = notes(capfd)
    assert len(said) == 1
    assert said[0].startswith("   note: grpc://127.0.0.1:1: unavailable")


def other(answer: bytes) -> bytes:
    read = streams.ReadResponse.FromString(answer)
    read.data = bytes(len(read.data))
    return read.SerializeToString()


def longer(answer: bytes) -> bytes:
    read = streams.ReadResponse.FromString(answer)
    read.data += b"more"
    return read.SerializeToString()


def shorter(answer: bytes) -> bytes:
    read = streams.ReadResponse.FromString(answer)
    read.data = read.data[:1]
    return read.SerializeToString()


def nothing_missing(answer: bytes) -> bytes:
    assert answer is not None
    return b""


def refuses(answer: bytes) -> bytes:
    taken = reapi.BatchUpdateBlobsResponse.FromString(answer)
    for response in taken.responses:
        response.status.code, response.status.message = 8, "no room\x1b[2J"
    return taken.SerializeToString()


def garbage(answer: bytes) -> bytes:
    return b"\xff" * (len(answer) + 1)


@pytest.mark.parametrize(
    ("method", "lie", "says"),
    [
        ("Read", None, None),
        ("Read", other, "sends other bytes than "),
        ("Read", longer, "sends more than the 5 bytes of "),
        ("Read", shorter, None),
        ("FindMissingBlobs", nothing_missing, ""),
        ("BatchUpdateBlobs", refuses, "error 8: no room\\x1b[2J"),
        ("Execute", garbage, ""),
        ("FindMissingBlobs", garbage, ""),
    ],
)
def test_lies(
    machine: Machine, start: Start, liar: Callable[..., Liar], capfd: Said, *,
    method: str, lie: Callable[[bytes], bytes] | None, says: str | None,
) -> None:  # fmt: skip
    """About a digest, what is missing, what it has taken; each beside the same without the lie.

    Where nothing is said, what was kept back came when it was asked for again.
    """

    def answered(asked: str, answer: bytes) -> bytes:
        return lie(answer) if lie is not None and asked == method else answer

    between = liar(start().address, answered)
    away = machine()
    engine = away.engine(between.address)
    step = shell("echo made >/out/out")
    engine.ensure(step)
    assert made(engine, step) == b"made\n"
    assert method in between.asked
    said = notes(capfd)
    if says is None:
        assert engine.ensure(step).origin.how is How.EXECUTED
        assert not said
    else:
        assert engine.find(step) is not None
        assert engine.ensure(step).origin.ours
        assert any(says in line for line in said), said


def test_tls(machine: Machine, start: Start, liar: Callable[..., Liar], tmp_path_factory: pytest.TempPathFactory,
             capfd: Said) -> None:  # fmt: skip
    """By the authority that the user names, and by no other."""
    folder = tmp_path_factory.mktemp("tls")
    certificates(folder)
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    between = liar(start().address, lambda _, answer: answer, credentials=grpc.ssl_server_credentials([pair]))
    step = shell("echo made >/out/out")
    engine = machine("knows").engine(between.address, known={"ca": folder / "ca.crt"})
    assert engine.ensure(step).origin.how is How.EXECUTED
    assert not notes(capfd)
    assert machine("does not").engine(between.address).ensure(step).origin.ours
    assert machine("without").engine(between.address.replace("grpcs", "grpc")).ensure(step).origin.ours
    assert len(notes(capfd)) == 2


def test_a_blob_larger_than_may_be(machine: Machine, start: Start) -> None:
    away = machine()
    away.engine(start().address)
    blobs, limit = Blobs(away.service.connection), Limit.of(30.0)
    digest = Digest.of(b"four")
    blobs.send({digest}, {digest: b"four"}, limit=limit)
    assert blobs.read(digest, most=4, limit=limit) == b"four"
    with pytest.raises(RemoteError, match="names 4 bytes where 3 are the most"):
        blobs.read(digest, most=3, limit=limit)
    began = time.monotonic()
    with pytest.raises(RemoteError, match="takes too long"):
        blobs.read(digest, most=4, limit=Limit(end=began))
