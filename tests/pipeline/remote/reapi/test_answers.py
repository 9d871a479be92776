# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a service answers, message by message: what is no answer to what was asked is not taken for one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as streams
from buildgrid.common.protos.google.longrunning import operations_pb2
from google.protobuf.message import Message

from tests.loopback import free_port
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.merkle import Digest, File
from tools.pipeline.remote.reapi import address, blobs, execution, tree
from tools.pipeline.remote.reapi.blobs import Blobs, message
from tools.pipeline.remote.reapi.connection import Connection, Limit, RemoteError
from tools.pipeline.remote.reapi.execution import StepFailedError

DIGEST = Digest.of(b"made\n")


def result() -> reapi.ActionResult:
    """Of a step with one output, as it should be."""
    made = reapi.ActionResult()
    made.output_files.add(path="out/out", digest=message(DIGEST), is_executable=True)
    return made


# ── what an execution gave ──


def test_outputs_are_taken() -> None:
    assert execution.outputs(result(), ["out"]) == {"out": File(digest=DIGEST, executable=True)}


@pytest.mark.parametrize(
    "text", ["", "../../../etc/passwd", DIGEST.sha256[:-1], f"{DIGEST.sha256}0", DIGEST.sha256.upper(), "０" * 64]
)
def test_a_digest_that_is_none(text: str) -> None:
    made = result()
    made.output_files[0].digest.hash = text
    with pytest.raises(RemoteError, match="no SHA-256"):
        execution.outputs(made, ["out"])


def test_a_size_that_is_none() -> None:
    made = result()
    made.output_files[0].digest.size_bytes = -1
    with pytest.raises(RemoteError, match="no SHA-256"):
        execution.outputs(made, ["out"])


WRONG: dict[str, Callable[[reapi.ActionResult], object]] = {
    "one more": lambda made: made.output_files.add(path="out/more", digest=message(DIGEST)),
    "one less": lambda made: made.output_files.pop(),
    "one twice": lambda made: made.output_files.add(path="out/out", digest=message(Digest.of(b"evil\n"))),
    "twice by two paths": lambda made: made.output_files.add(path="out", digest=message(Digest.of(b"evil\n"))),
    "another's": lambda made: setattr(made.output_files[0], "path", "out/other"),
    "elsewhere": lambda made: setattr(made.output_files[0], "path", "../out"),
    "a folder": lambda made: made.output_directories.add(path="out/out"),
    "a link": lambda made: made.output_symlinks.add(path="out/out", target="/etc/passwd"),
    "a link to a file": lambda made: made.output_file_symlinks.add(path="out/out", target="/etc/passwd"),
    "a link to a folder": lambda made: made.output_directory_symlinks.add(path="out/out", target="/"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_other_outputs_than_the_step_has(change: Callable[[reapi.ActionResult], object]) -> None:
    made = result()
    change(made)
    with pytest.raises(RemoteError, match="does not have the outputs that the step has"):
        execution.outputs(made, ["out"])


def answered(change: Callable[[reapi.ExecuteResponse], object] = lambda _: None) -> operations_pb2.Operation:
    response = reapi.ExecuteResponse(result=result())
    response.result.execution_metadata.worker = "w" * 100 + "\x1b[2J"
    change(response)
    operation = operations_pb2.Operation(name="1", done=True)
    operation.response.Pack(response)
    return operation


def test_a_response_is_taken() -> None:
    taken = execution._response(answered(), ["out"])
    assert taken.outputs == {"out": File(digest=DIGEST, executable=True)}
    assert (taken.worker, taken.cached) == ("w" * 80, False)
    named = answered(lambda one: setattr(one.result.execution_metadata, "worker", "w\x1b[2J"))
    assert execution._response(named, ["out"]).worker == "w\\x1b[2J"


def test_a_command_that_failed_gave_nothing() -> None:
    """Whatever outputs it left, and even those that the step has."""
    with pytest.raises(StepFailedError, match="ended with status 3"):
        execution._response(answered(lambda one: setattr(one.result, "exit_code", 3)), ["out"])


def test_an_execution_that_failed_gave_nothing() -> None:
    with pytest.raises(RemoteError, match="error 9: no") as caught:
        execution._response(answered(lambda one: one.status.MergeFrom(type(one.status)(code=9, message="no"))), ["out"])
    assert caught.value.code == "STATUS_9"
    operation = operations_pb2.Operation(done=True)
    operation.error.code, operation.error.message = 7, "not you"
    with pytest.raises(RemoteError, match="error 7: not you"):
        execution._response(operation, ["out"])


def test_an_answer_of_another_kind() -> None:
    operation = operations_pb2.Operation(done=True)
    operation.response.Pack(reapi.Command())
    with pytest.raises(RemoteError, match="no result of an execution"):
        execution._response(operation, ["out"])


# ── its store ──


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Message], Blobs]:
    """answers(message): a store that answers every question so; nobody is asked."""

    def make(answer: Message) -> Blobs:
        connection = Connection(address.parse(f"grpc://127.0.0.1:{free_port()}"))
        monkeypatch.setattr(connection, "call", lambda *_, **__: answer)
        return Blobs(connection)

    return make


Answers = Callable[[Message], Blobs]


def test_what_is_missing_was_asked_for(answers: Answers) -> None:
    other = Digest.of(b"other")
    store = answers(reapi.FindMissingBlobsResponse(missing_blob_digests=[message(DIGEST), message(other)]))
    assert store.missing([DIGEST, other], limit=Limit.of(9)) == {DIGEST, other}
    assert store.missing([DIGEST], limit=Limit.of(9)) == {DIGEST}


def test_what_was_sent_was_taken(answers: Answers) -> None:
    """All of it, as the service says; one that says nothing of it has not taken it."""
    good = reapi.BatchUpdateBlobsResponse()
    good.responses.add(digest=message(DIGEST))
    answers(good).send({DIGEST}, {DIGEST: b"made\n"}, limit=Limit.of(9))
    with pytest.raises(RemoteError, match="does not say that it has taken"):
        answers(reapi.BatchUpdateBlobsResponse()).send({DIGEST}, {DIGEST: b"made\n"}, limit=Limit.of(9))
    refused = reapi.BatchUpdateBlobsResponse()
    refused.responses.add(digest=message(DIGEST)).status.code = 8
    with pytest.raises(RemoteError, match="error 8"):
        answers(refused).send({DIGEST}, {DIGEST: b"made\n"}, limit=Limit.of(9))


@pytest.mark.parametrize(("size", "known"), [(0, 0), (4, 4), (5, None), (99, None), (-1, None)])
def test_how_far_an_upload_came(answers: Answers, size: int, known: int | None) -> None:
    store = answers(streams.QueryWriteStatusResponse(committed_size=size))
    assert store._committed("uploads/1", DIGEST, Limit.of(9)) == known


def test_a_stream_was_taken_whole(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    store = answers(streams.WriteResponse())
    for size, good in ((5, True), (4, False), (6, False)):
        answer = streams.WriteResponse(committed_size=size)
        monkeypatch.setattr(store._streams, "Write", lambda *_, answer=answer, **__: answer)
        if good:
            store._send(DIGEST, b"made\n", Limit.of(9))
        else:
            with pytest.raises(RemoteError, match=f"has taken {size} bytes of 5"):
                store._send(DIGEST, b"made\n", Limit.of(9))


# ── what is sent ──


def test_what_was_changed_meanwhile_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, good in ((b"made\n", True), (b"evil\n", False), (b"made\nmore", False), (b"mad", False), (b"", False)):
        path.write_bytes(data)
        if good:
            assert b"".join(blobs._read(lambda: path, DIGEST, 0)) == data
            assert b"".join(blobs._read(lambda: path, DIGEST, 3)) == data[3:]
        else:
            with pytest.raises(BuildError, match="was changed while the build ran"):
                list(blobs._read(lambda: path, DIGEST, 0))


def test_a_kept_tree_is_compared_with_its_digest(tmp_path: Path) -> None:
    """What lies below build/ for a tool tree is another's: the tree itself is read again; and that is compared, too."""
    place, other, kept = tmp_path / "tree", tmp_path / "other", tmp_path / "kept"
    for folder, text in ((place, "good"), (other, "evil")):
        (folder / "usr/bin").mkdir(parents=True)
        (folder / "usr/bin/cc").write_text(text)
    digest = merkle.read(place).digest().sha256
    tree.load(merkle.read(other).digest().sha256, lambda: other, kept)
    loaded = tree.load(digest, lambda: place, kept)
    assert loaded.digest.sha256 == digest
    assert Digest.of(b"good") in loaded.blobs
    assert Digest.of(b"evil") not in loaded.blobs

    def nowhere() -> Path:
        raise AssertionError("it is kept")

    assert tree.load(digest, nowhere, kept).digest.sha256 == digest
    for data in (b"", b"garbage", kept.read_bytes()[:-40]):
        kept.write_bytes(data)
        assert tree.load(digest, lambda: place, kept).digest.sha256 == digest
    kept.unlink()
    with pytest.raises(BuildError, match="was changed while the build ran"):
        tree.load(digest, lambda: other, kept)
