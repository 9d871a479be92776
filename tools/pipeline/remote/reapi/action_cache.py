# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Signed records in the action cache: results that builders share through the service.

    kind, key, builder ── an action that nobody executes ── ActionResult ─┬─ out/NAME: the outputs
                                                                          └─ record: what the builder has signed

The API has no signatures, so the record (remote/records.py) is one more output. Each builder has entries of his own:
he cannot overwrite another's. The service keeps an entry only as long as it has everything that the entry names.
"""

from collections.abc import Callable, Mapping

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services

from tools.pipeline.engine.remote import TREE, Wanted
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.engine.store.results import Result
from tools.pipeline.remote import records
from tools.pipeline.remote.reapi.blobs import Blobs, Source, message, taken
from tools.pipeline.remote.reapi.connection import Connection, Limit, RemoteError
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Public, Signer

_RECORD = "record"
_NOT_FOUND = "NOT_FOUND"


class ActionCache:
    """The action cache of one instance, as the place of signed records."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._cache = services.ActionCacheStub(connection.channel)

    def find(
        self,
        wanted: Wanted,
        builders: Mapping[str, Public],
        *,
        limit: Limit,
        refused: Callable[[records.Refused], object],
    ) -> Result | None:
        """The first result that one of the builders has signed, and whose outputs are there; keys by fingerprint.

        `refused` hears of each that is there and does not count. Raises RemoteError.
        """
        origin = Origin(how=How.CACHE, place=str(self._connection.address))
        for builder, public in builders.items():
            try:
                data = self._record(_entry(wanted, builder)[0], limit)
                if data is None:
                    continue
                result = records.read(data, wanted, {builder: public}, origin)
            except records.Refused as error:
                # Whoever may write to the action cache has put it there: it hides no other builder's.
                refused(error)
                continue
            outputs = () if wanted.kind == TREE else [node.digest for node in result.outputs.values()]
            if not self._blobs.missing(outputs, limit=limit):
                return result
        return None

    def _record(self, action: Digest, limit: Limit) -> bytes | None:
        request = reapi.GetActionResultRequest(
            instance_name=self._connection.address.instance, action_digest=message(action)
        )
        try:
            found = self._connection.call(self._cache.GetActionResult, request, limit=limit)
        except RemoteError as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        digest = next((taken(file.digest) for file in found.output_files if file.path == _RECORD), None)
        if digest is None:
            raise records.Refused("has no record among its outputs")
        if digest.size > records.RECORD_MAX:
            raise records.Refused("is too large")
        try:
            return self._blobs.read(digest, most=records.RECORD_MAX, limit=limit)
        except RemoteError as error:
            if error.code == _NOT_FOUND:
                raise records.Refused("names bytes that are not there") from None
            raise

    def offer(
        self, wanted: Wanted, result: Result, sources: Mapping[Digest, Source], signer: Signer, *, limit: Limit
    ) -> bool:
        """Send the outputs, of which `sources` knows the bytes, and a signed record of them; False if it is there."""
        builder = keys.fingerprint(signer.public)
        there = self.find(wanted, {builder: signer.public}, limit=limit, refused=lambda _: None)
        if there is not None and dict(there.outputs) == dict(result.outputs):
            return False
        record = records.write(wanted, result, signer)
        action, blobs = _entry(wanted, builder)
        everything = {**sources, **blobs, Digest.of(record): record}
        self._blobs.send(self._blobs.missing(everything, limit=limit), everything, limit=limit)
        entry = reapi.ActionResult()
        if wanted.kind != TREE:
            for name, node in sorted(result.outputs.items()):
                entry.output_files.add(path=f"out/{name}", digest=message(node.digest), is_executable=node.executable)
        entry.output_files.add(path=_RECORD, digest=message(Digest.of(record)))
        request = reapi.UpdateActionResultRequest(
            instance_name=self._connection.address.instance, action_digest=message(action), action_result=entry
        )
        self._connection.call(self._cache.UpdateActionResult, request, limit=limit)
        return True


def _entry(wanted: Wanted, builder: str) -> tuple[Digest, Mapping[Digest, Source]]:
    """The action under which a builder's record of a result is, and its blobs. Nothing in it can be executed."""
    folder = reapi.Directory().SerializeToString()
    command = reapi.Command(arguments=["sev-artifacts-record", wanted.kind, wanted.key, builder])
    told = command.SerializeToString(deterministic=True)
    action = reapi.Action(command_digest=message(Digest.of(told)), input_root_digest=message(Digest.of(folder)))
    data = action.SerializeToString(deterministic=True)
    return Digest.of(data), {Digest.of(told): told, Digest.of(data): data}
