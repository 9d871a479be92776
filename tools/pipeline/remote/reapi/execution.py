# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An action executed by the service: started once, waited for however often the connection breaks.

Whatever comes back is the service's word. Here it is only seen to that it is an answer to what was asked: each output
that the step has, a regular file, and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services
from buildgrid.common.protos.google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from tools.pipeline.engine.store.merkle import Digest, File
from tools.pipeline.remote.reapi.blobs import message, taken
from tools.pipeline.remote.reapi.connection import Attempts, Connection, Limit, RemoteError, said, told
from tools.sev.errors import printable

_OK, _NOT_FOUND = 0, "NOT_FOUND"
_WORKER = 80  # characters of a worker's name that are shown
_STAGES = {1: "looks for a result", 2: "in the queue", 3: "runs", 4: "done"}  # ExecutionStage.Value


@dataclass(frozen=True, kw_only=True)
class Executed:
    """What the service says that an action gave. `worker` is its name for who ran it, "" if it has none."""

    outputs: Mapping[str, File]
    worker: str
    cached: bool


class StepFailedError(Exception):
    """The service says that the command ended with another status than 0."""


class Execution:
    """The Execution service of one instance."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._execution = services.ExecutionStub(connection.channel)

    def run(
        self, action: Digest, names: Sequence[str], *, again: bool, limit: Limit, tell: Callable[[str], object]
    ) -> Executed:
        """Execute the action, of which everything is in the store.

        `again`: whatever its action cache has for it, where any other client may have put that. `tell` hears the stage.
        Raises RemoteError; StepFailedError when it is the command that failed.
        """
        request = reapi.ExecuteRequest(
            instance_name=self._connection.address.instance, action_digest=message(action), skip_cache_lookup=again
        )
        attempts, name = Attempts(limit), ""
        while True:
            with attempts.one():
                with told():
                    for operation in self._listen(request, name, limit):
                        name = operation.name or name
                        if operation.done:
                            executed = _response(operation, names)
                            if again and executed.cached:
                                raise RemoteError("gives what its action cache has in place of a run")
                            return executed
                        tell(_stage(operation))
                raise RemoteError("ended the conversation before the result", code="UNAVAILABLE")

    def _listen(self, request: reapi.ExecuteRequest, name: str, limit: Limit) -> Iterator[operations_pb2.Operation]:
        self._connection.traffic.count(sent=request.ByteSize())
        if not name:
            yield from self._execution.Execute(request, timeout=limit.left())
            return
        try:
            with told():
                yield from self._execution.WaitExecution(reapi.WaitExecutionRequest(name=name), timeout=limit.left())
        except RemoteError as error:
            if error.code != _NOT_FOUND:
                raise
            # It was started again, and has forgotten. The same action is asked for: it may have the result by now.
            yield from self._execution.Execute(request, timeout=limit.left())


def _stage(operation: operations_pb2.Operation) -> str:
    about = reapi.ExecuteOperationMetadata()
    return _STAGES.get(about.stage, "") if _unpack(operation.metadata, about) else ""


def _unpack(packed: Any, into: reapi.ExecuteOperationMetadata | reapi.ExecuteResponse) -> bool:
    try:
        return bool(packed.Unpack(into))
    except DecodeError:
        return False


def _response(operation: operations_pb2.Operation, names: Sequence[str]) -> Executed:
    if operation.WhichOneof("result") == "error":
        raise _refused(operation.error.code, operation.error.message)
    response = reapi.ExecuteResponse()
    if not _unpack(operation.response, response):
        raise RemoteError("its answer is no result of an execution")
    if response.status.code != _OK:
        raise _refused(response.status.code, response.status.message or response.message)
    result = response.result
    if result.exit_code != 0:
        raise StepFailedError(f"ended with status {result.exit_code}")
    worker = printable(result.execution_metadata.worker)[:_WORKER]
    return Executed(outputs=outputs(result, names), worker=worker, cached=response.cached_result)


def _refused(code: int, words: str) -> RemoteError:
    return RemoteError(said(f"error {code}", words), code=f"STATUS_{code}")


def outputs(result: reapi.ActionResult, names: Sequence[str]) -> dict[str, File]:
    """The files of a result by name; RemoteError when they are not exactly those."""
    found = {}
    for file in result.output_files:
        digest = taken(file.digest)
        if not (len(digest.sha256) == 64 and set(digest.sha256) <= set("0123456789abcdef") and digest.size >= 0):
            raise RemoteError("names an output by something that is no SHA-256")
        found[file.path.removeprefix("out/")] = File(digest=digest, executable=file.is_executable)
    others = [*result.output_directories, *result.output_symlinks, *result.output_file_symlinks]
    others += result.output_directory_symlinks
    if others or len(result.output_files) != len(found) or sorted(found) != sorted(names):
        raise RemoteError("its result does not have the outputs that the step has, or not as regular files")
    return found
