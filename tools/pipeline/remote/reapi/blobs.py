# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The service's content-addressed store: what is missing there is sent, what comes is hashed.

Small files go many in a message, larger ones as streams that go on where a broken connection left them. Nothing that
comes is believed to be what its digest says, and no more of it is taken than the digest's size.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services
from buildgrid.common.protos.google.bytestream import bytestream_pb2 as streams
from buildgrid.common.protos.google.bytestream import bytestream_pb2_grpc as stream_services

from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.merkle import Digest
from tools.pipeline.remote.reapi.connection import MESSAGE, Attempts, Connection, Limit, RemoteError, said, told

Source = bytes | Callable[[], Path]
"""The bytes of a blob, or what finds the file that has them when they are wanted."""

_CHUNK = 1 << 20  # bytes of a stream's message
_BATCHED = 1 << 20  # bytes of a blob that still goes with others
_AROUND = 256  # bytes, generously, of a digest and what else a message has for each blob
_DIGESTS = MESSAGE // _AROUND // 2
_THREADS = 4
_OK = 0  # google.rpc.Code
_FRESH = frozenset({"NOT_FOUND", "UNIMPLEMENTED"})  # the service knows nothing of an upload that broke


class Blobs:
    """Blobs of one instance of a service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._instance = connection.address.instance
        self._store = services.ContentAddressableStorageStub(connection.channel)
        self._streams = stream_services.ByteStreamStub(connection.channel)

    def missing(self, digests: Iterable[Digest], *, limit: Limit) -> set[Digest]:
        """Those that the service says it does not have."""
        asked = sorted({digest for digest in digests if digest.size}, key=lambda digest: digest.sha256)
        found: set[Digest] = set()
        for part in _parts(asked, _DIGESTS):
            request = reapi.FindMissingBlobsRequest(instance_name=self._instance, blob_digests=map(message, part))
            answer = self._connection.call(self._store.FindMissingBlobs, request, limit=limit)
            found |= {taken(one) for one in answer.missing_blob_digests} & set(part)
        return found

    def send(self, missing: AbstractSet[Digest], sources: Mapping[Digest, Source], *, limit: Limit) -> None:
        """Send those blobs."""
        small = sorted((digest for digest in missing if digest.size <= _BATCHED), key=lambda digest: digest.sha256)
        large = sorted(missing - {*small}, key=lambda digest: digest.sha256)
        with ThreadPoolExecutor(_THREADS) as pool:
            sent = [pool.submit(self._send_batch, batch, sources, limit) for batch in _batches(small)]
            sent += [pool.submit(self._send, digest, sources[digest], limit) for digest in large]
            try:
                for one in sent:
                    one.result()
            except BaseException:
                for one in sent:
                    one.cancel()
                raise

    def _send_batch(self, batch: list[Digest], sources: Mapping[Digest, Source], limit: Limit) -> None:
        request = reapi.BatchUpdateBlobsRequest(instance_name=self._instance)
        for digest in batch:
            data = b"".join(_read(sources[digest], digest, 0))
            request.requests.add(digest=message(digest), data=data)
        self._connection.traffic.count(blobs=sum(digest.size for digest in batch))
        answer = self._connection.call(self._store.BatchUpdateBlobs, request, limit=limit)
        done = {taken(one.digest) for one in answer.responses if one.status.code == _OK}
        for one in answer.responses:
            if one.status.code != _OK:
                raise RemoteError(said(f"error {one.status.code}", one.status.message))
        if not done >= set(batch):
            raise RemoteError("does not say that it has taken what was sent")

    def _send(self, digest: Digest, source: Source, limit: Limit) -> None:
        """One blob as a stream, from where the service has it when the connection broke."""
        attempts, name = Attempts(limit), self._upload(digest)
        offset = best = 0
        broken = False
        while True:
            with attempts.one():
                if broken:
                    committed = self._committed(name, digest, limit)
                    name, offset = (self._upload(digest), 0) if committed is None else (name, committed)
                    if offset > best:
                        attempts.progress()
                        best = offset
                broken = True
                with told():
                    answer = self._streams.Write(self._messages(name, digest, source, offset), timeout=limit.left())
                if answer.committed_size != digest.size:
                    raise RemoteError(f"has taken {answer.committed_size} bytes of {digest.size}")
                return

    def _messages(self, name: str, digest: Digest, source: Source, offset: int) -> Iterator[streams.WriteRequest]:
        for chunk in _read(source, digest, offset):
            self._connection.traffic.count(sent=len(chunk), blobs=len(chunk))
            yield streams.WriteRequest(
                resource_name=name,
                write_offset=offset,
                data=chunk,
                finish_write=offset + len(chunk) == digest.size,
            )
            offset += len(chunk)

    def _committed(self, name: str, digest: Digest, limit: Limit) -> int | None:
        """How far an upload came; None when the service knows nothing of it."""
        request = streams.QueryWriteStatusRequest(resource_name=name)
        try:
            answer = self._connection.call(self._streams.QueryWriteStatus, request, limit=limit)
        except RemoteError as error:
            if error.code in _FRESH:
                return None
            raise
        return answer.committed_size if 0 <= answer.committed_size < digest.size else None

    def _upload(self, digest: Digest) -> str:
        name = uuid.UUID(bytes=ambient.random_bytes(16), version=4)
        return self._name(f"uploads/{name}/blobs/{digest.sha256}/{digest.size}")

    def _name(self, rest: str) -> str:
        return f"{self._instance}/{rest}" if self._instance else rest

    def read(self, digest: Digest, *, most: int, limit: Limit) -> bytes:
        """The bytes of a blob of at most that many; RemoteError when they cannot be had or are others."""
        return b"".join(self.chunks(digest, most=most, limit=limit))

    def chunks(self, digest: Digest, *, most: int, limit: Limit) -> Iterator[bytes]:
        """The bytes of a blob of at most that many, as they come; RemoteError, before their end, if they are others."""
        if digest.size > most:
            raise RemoteError(f"names {digest.size} bytes where {most} are the most")
        content, got = hashlib.sha256(), 0
        attempts = Attempts(limit)
        name = self._name(f"blobs/{digest.sha256}/{digest.size}")
        while got < digest.size:
            before = got
            with attempts.one(), told():
                request = streams.ReadRequest(resource_name=name, read_offset=got)
                for answer in self._streams.Read(request, timeout=limit.left()):
                    got += len(answer.data)
                    self._connection.traffic.count(received=len(answer.data))
                    if got > digest.size:
                        raise RemoteError(f"sends more than the {digest.size} bytes of {digest.sha256[:12]}…")
                    content.update(answer.data)
                    if got == digest.size and content.hexdigest() != digest.sha256:
                        raise RemoteError(f"sends other bytes than {digest.sha256[:12]}…")
                    yield answer.data
                if got < digest.size:
                    raise RemoteError(f"sends {got} of {digest.size} bytes of {digest.sha256[:12]}…", code="ABORTED")
            if got > before:
                attempts.progress()


def message(digest: Digest) -> reapi.Digest:
    """As the service has it."""
    return reapi.Digest(hash=digest.sha256, size_bytes=digest.size)


def taken(digest: reapi.Digest) -> Digest:
    """As we have it. What the service says is compared with what is asked, or hashed."""
    return Digest(sha256=digest.hash, size=digest.size_bytes)


def _parts(digests: list[Digest], count: int) -> Iterator[list[Digest]]:
    for first in range(0, len(digests), count):
        yield digests[first : first + count]


def _batches(digests: list[Digest]) -> Iterator[list[Digest]]:
    """As many in a message as fit."""
    batch: list[Digest] = []
    room = MESSAGE
    for digest in digests:
        needed = digest.size + _AROUND
        if needed > room and batch:
            yield batch
            batch, room = [], MESSAGE
        batch.append(digest)
        room -= needed
    if batch:
        yield batch


def _read(source: Source, digest: Digest, offset: int) -> Iterator[bytes]:
    """The bytes from an offset on; BuildError, before the last of them, when all of them are not the digest's."""
    content, position, held = hashlib.sha256(), 0, b""
    where = "" if isinstance(source, bytes) else source()
    for chunk in [source] if isinstance(source, bytes) else _chunks(Path(where)):
        content.update(chunk)
        position += len(chunk)
        if position > offset:
            if held:
                yield held
            held = chunk[max(0, len(chunk) - (position - offset)) :]
    if position != digest.size or content.hexdigest() != digest.sha256:
        raise BuildError("was changed while the build ran", where=str(where), hint="build again")
    if held:
        yield held


def _chunks(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk
