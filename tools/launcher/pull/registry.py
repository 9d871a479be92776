# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A repository of a registry, to read: manifests, blobs, and statements about an artifact.

What it answers is compared with the digest that was asked for, and never has more bytes than it may. What others have
attached is theirs: of what is broken there only a line is kept.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tools.launcher.base.errors import CheckError
from tools.launcher.pull.connection import Connection, Lost, content_length
from tools.launcher.trust.artifact import MANIFEST_MAX, MANIFEST_TYPE, Artifact
from tools.launcher.trust.decision import Bundle
from tools.launcher.trust.envelope import BUNDLE_MAX
from tools.sev.formats import BUNDLE_TYPE, LATEST_TYPE, latest_tag

_INDEX = "application/vnd.oci.image.index.v1+json"
_ACCEPT = {"Accept": f"{MANIFEST_TYPE}, {_INDEX}"}
_LIES = "it is damaged, or lies: use another"
_STATEMENTS_MAX = 200
_ROOM, _LEAST = 128 << 20, 64 << 10
"""Bytes of all statements on an artifact, and of all of "latest"; each counts for no less than the second."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Registry:
    """One repository."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._room = 0

    def manifest(self, what: str) -> bytes | None:
        """The manifest or index behind a tag or a digest, its bytes compared with the digest; None: not there."""
        found = self._connection.patiently(lambda: self._answer(f"manifests/{what}"))
        if found is None:
            return None
        data, claimed = found
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for wanted in (what if _DIGEST.fullmatch(what) else actual, claimed or actual):
            if wanted != actual:
                raise self._connection.error(f"gives manifest {actual} for {wanted}", hint=_LIES)
        return data

    def fetch(self, sha256: str, size: int, take: Callable[[memoryview], object], start: int) -> None:
        """Hand the bytes of a blob from `start` on to `take`, all of them or Lost; who takes them hashes them.

        CheckError when the registry has no such blob, or one of another size.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = f"blobs/sha256:{sha256}"
        with self._connection.get(path, good=(206,) if start else (200,), headers=headers) as response:
            if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise self._connection.error(f"sends another part of sha256:{sha256} than was asked for", hint=_LIES)
            left = size - start
            length = content_length(response)
            if length is not None and length != left:
                what = f"sends {length} bytes of sha256:{sha256}, which has {left}"
                raise self._connection.error(what, hint=_LIES)
            buffer = memoryview(bytearray(min(max(left, 1), 1 << 19)))
            while left and (count := response.readinto(buffer[: min(left, len(buffer))])):
                left -= count
                take(buffer[:count])
            if left:
                raise Lost("the connection ended early")
            if response.read(1):
                raise self._connection.error(f"sends more of sha256:{sha256} than it has", hint=_LIES)

    def read(self, digest: str, size: int, *, limit: int) -> bytes:
        """A small blob, hashed; CheckError when it has more than `limit` bytes, or is not what was asked for."""
        if not 0 <= size <= limit:
            raise self._connection.error(f"{digest} has {size} bytes, {limit} are allowed")

        def once() -> bytes:
            data = bytearray()
            self.fetch(digest.removeprefix("sha256:"), size, data.extend, 0)
            return bytes(data)

        data = self._connection.patiently(once)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise self._connection.error(f"sends other bytes for {digest}", hint=_LIES)
        return data

    def statements(self, artifact: Artifact, broken: list[str]) -> Iterator[Bundle]:
        """Bundles that are attached to the artifact, and those of the tag "latest"; `broken`: what could not be read.

        There is a bound on each: a registry could list without end.
        """
        listed = [entry for entry in self._referrers(artifact) if _is(entry, "artifactType", BUNDLE_TYPE)]
        self._room = _ROOM
        # Neither who attaches first nor who attaches last hides all others.
        half = _STATEMENTS_MAX // 2
        for entry in [*listed[:half], *listed[half:][-half:]]:
            yield from self._bundles(str(entry.get("digest")), artifact.digest, broken)
        self._room = _ROOM
        yield from self._bundles(latest_tag(artifact.profile), None, broken)

    def _bundles(self, what: str, subject: str | None, broken: list[str]) -> Iterator[Bundle]:
        """The bundles of one manifest, which must be about `subject`, or the tag "latest"."""
        try:
            data = self.manifest(what)
            if data is None:
                return
            document = _object(data)
            kind = LATEST_TYPE if subject is None else BUNDLE_TYPE
            about = document.get("subject")
            if document.get("artifactType") != kind or (subject is not None and not _is(about, "digest", subject)):
                raise self._connection.error(f"{what} is attached to something else")
            for layer in _entries(document, "layers")[:_STATEMENTS_MAX]:
                digest, size = str(layer.get("digest")), layer.get("size")
                if _is(layer, "mediaType", BUNDLE_TYPE) and _DIGEST.fullmatch(digest) and type(size) is int:
                    self._room -= max(size, _LEAST)
                    if self._room < 0:
                        raise self._connection.error(f"more than {_ROOM} bytes of statements: the rest is not read")
                    name = "latest" if subject is None else "statement"
                    yield Bundle(where=f"{name} {digest[:19]}", data=self.read(digest, size, limit=BUNDLE_MAX))
        except CheckError as error:
            broken.append(str(error))

    def _referrers(self, artifact: Artifact) -> list[dict[str, Any]]:
        """From the registry's own list, or by the tag scheme (distribution specification 1.1)."""
        found = self._connection.patiently(lambda: self._answer(f"referrers/{artifact.digest}"))
        data = found[0] if found else self.manifest(f"sha256-{artifact.sha256}")
        return [] if data is None else _entries(_object(data), "manifests")

    def _answer(self, path: str) -> tuple[bytes, str] | None:
        """Bytes, and the digest that the registry claims; None: not there."""
        with self._connection.get(path, good=(200, 404), headers=_ACCEPT) as response:
            data = self._connection.read(response, MANIFEST_MAX)
            return None if response.status == 404 else (data, response.headers.get("Docker-Content-Digest", ""))


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _entries(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = document.get(key)
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _is(entry: Any, key: str, value: str) -> bool:
    return isinstance(entry, dict) and entry.get(key) == value
