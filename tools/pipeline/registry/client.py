# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A repository of a registry: blobs, manifests, tags, referrers.

What it answers is compared with the digest that was asked for, and never has more bytes than it may.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.registry import login, oci, upload
from tools.pipeline.registry.connection import Connection, Lost, Options
from tools.pipeline.registry.oci import MANIFEST_MAX, Content, Descriptor
from tools.pipeline.sources import transport
from tools.sev.registry.login import Login
from tools.sev.registry.reference import TAG, Reference

# Docker's are nobody's of ours. docker-registry makes others of them for whoever does not take them, or cannot (400).
_DOCKER = "application/vnd.docker.distribution.manifest"
_ACCEPT = {"Accept": f"{oci.MANIFEST}, {oci.INDEX}, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"}
_TAGS, _PAGES, _PAGE_MAX = 1000, 100, 1 << 20  # tags that a page has, pages of a list, bytes of a page
_LIES = "it is damaged, or lies: use another"


class Registry:
    """One repository. `part` is the most that one request of an upload carries, in bytes."""

    def __init__(
        self,
        place: Reference,
        options: Options,
        *,
        find_login: Callable[[str], Login] = login.find,
        part: int = upload.PART,
    ) -> None:
        self._connection = Connection(place, options, find_login)
        self._part = part
        self._api: bool | None = None  # whether it has the referrers API

    @property
    def where(self) -> str:
        """HOST/NAME, for messages."""
        return self._connection.where

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    # ── pushing ──

    def blob(self, content: Content) -> bool:
        """Push a blob unless it is there; whether it had to be sent."""
        return upload.push(self._connection, content, part=self._part)

    def manifest(self, content: Content, tag: str = "") -> None:
        """Push a manifest or index by its digest, or give it a tag."""
        data, digest = content.data, content.descriptor.digest
        url = self._connection.url(f"manifests/{tag or digest}")
        headers = {"Content-Type": content.descriptor.media_type}

        def put() -> None:
            with self._connection.request("PUT", url, good=(201,), headers=headers, body=lambda: data) as response:
                given = response.headers.get("Docker-Content-Digest", digest)
                if given != digest:
                    raise self._connection.error(f"took manifest {digest} for {given}", hint=_LIES)
                if "OCI-Subject" in response.headers:
                    self._api = True

        self._connection.patiently(put)

    def attach(self, content: Content, subject: Descriptor) -> None:
        """Push a manifest that names `subject`, so that whoever asks for the subject's referrers finds it."""
        self.manifest(content)
        if self.referrers_api(subject):
            return
        tag = oci.referrers_tag(subject)
        listed = self._listed(tag)
        entry = content.descriptor.document()
        if any(other.get("digest") == entry["digest"] for other in listed):
            return
        self.manifest(oci.of_bytes(oci.index([*listed, entry]), oci.INDEX), tag)
        if not any(other.get("digest") == entry["digest"] for other in self._listed(tag)):
            # There is no compare-and-swap: whoever wrote the tag at the same time has won.
            raise self._connection.error(f"somebody else wrote {tag} at the same time", hint="publish again")

    # ── asking ──

    def referrers_api(self, subject: Descriptor) -> bool:
        """Whether the registry lists referrers itself."""
        if self._api is None:
            url = self._connection.url(f"referrers/{subject.digest}")

            def ask() -> bool:
                with self._connection.request("GET", url, good=(200, 404)) as response:
                    kind = response.headers.get("Content-Type", "")
                    return response.status_code == 200 and kind.startswith(oci.INDEX)

            self._api = self._connection.patiently(ask)
        return self._api

    def referrers(self, subject: Descriptor) -> list[dict[str, Any]]:
        """Descriptors, as JSON, of what names `subject`."""
        if not self.referrers_api(subject):
            return self._listed(oci.referrers_tag(subject))
        url = self._connection.url(f"referrers/{subject.digest}")
        found = self._connection.patiently(lambda: self._read(url))
        return _entries(found[0]) if found else []

    def resolve(self, what: str) -> Content | None:
        """The manifest or index behind a tag or a digest, its bytes compared with the digest; None: not there."""
        url = self._connection.url(f"manifests/{what}")
        found = self._connection.patiently(lambda: self._read(url))
        if found is None:
            return None
        data, media_type, claimed = found
        actual = f"sha256:{files.of_bytes(data)}"
        for wanted in (what if what.startswith("sha256:") else actual, claimed or actual):
            if wanted != actual:
                raise self._connection.error(f"gives a manifest {actual} for {wanted}", hint=_LIES)
        return oci.of_bytes(data, media_type)

    def tags(self) -> list[str]:
        """Every tag, sorted; none where the repository is not there. BuildError for a list that never ends.

        Page by page, as the distribution specification 1.1 has it ("Listing Tags": `n`, `last`).
        """
        found: set[str] = set()
        last = ""
        for _ in range(_PAGES):
            page = self._connection.patiently(lambda last=last: self._tags_behind(last))  # type: ignore[misc]  # bound
            if not set(page) - found:
                return sorted(found)
            found.update(page)
            last = max(page)
            if len(page) < _TAGS:
                return sorted(found)
        raise self._connection.error(f"has more than {_TAGS * _PAGES} tags", hint="name one of them")

    def _tags_behind(self, last: str) -> list[str]:
        url = self._connection.url(f"tags/list?n={_TAGS}{f'&last={last}' if last else ''}")
        with self._connection.request("GET", url, good=(200, 404)) as response:
            if response.status_code == 404:
                return []
            data = self._connection.read(response, _PAGE_MAX)
        try:
            listed = oci.parse(data).get("tags") or []
            return [tag for tag in listed if TAG.fullmatch(tag)]
        except (ValueError, TypeError):
            raise self._connection.error("sends no list of tags") from None

    def fetch(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """A blob's bytes from `start` on, never more than its size. Lost when the connection breaks.

        BuildError when the registry has none, or one of another size; whoever takes the bytes hashes them.
        """
        url = self._connection.url(f"blobs/{descriptor.digest}")
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._connection.request("GET", url, good=(200, 206), headers=headers) as response:
            left = descriptor.size - (start if response.status_code == 206 else 0)
            skip = start if response.status_code == 200 else 0
            length = transport.number(response, "Content-Length")
            if length is not None and length != left:
                what = f"sends {length} bytes of {descriptor.digest}, which has {left} more"
                raise self._connection.error(what, hint=_LIES)
            for chunk in self._connection.chunks(response, left):
                left -= len(chunk)
                used, skip = chunk[skip:], max(skip - len(chunk), 0)
                if used:
                    yield used
            if left:
                raise Lost("the connection ended early")
            if response.raw.read1(1):
                raise self._connection.error(f"sends more of {descriptor.digest} than it has", hint=_LIES)

    def read(self, descriptor: Descriptor, *, limit: int = MANIFEST_MAX) -> bytes:
        """A small blob, hashed; BuildError when it is larger than `limit` bytes or not what was asked for."""
        if descriptor.size > limit:
            raise self._connection.error(f"{descriptor.digest} has {descriptor.size} bytes, {limit} are allowed")
        data = self._connection.patiently(lambda: b"".join(self.fetch(descriptor)))
        if hashlib.sha256(data).hexdigest() != descriptor.sha256:
            raise self._connection.error(f"sends other bytes for {descriptor.digest}", hint=_LIES)
        return data

    def patiently(self, work: Callable[[], object]) -> None:
        """Do it again when it is Lost."""
        self._connection.patiently(work)

    def _read(self, url: str) -> tuple[bytes, str, str] | None:
        """Bytes, media type, and the digest that the registry claims."""
        with self._connection.request("GET", url, good=(200, 404), headers=_ACCEPT) as response:
            if response.status_code == 404:
                return None
            data = self._connection.read(response, MANIFEST_MAX)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            return data, kind, response.headers.get("Docker-Content-Digest", "")

    def _listed(self, tag: str) -> list[dict[str, Any]]:
        found = self.resolve(tag)
        try:
            return _entries(found.data) if found else []
        except BuildError as error:
            raise self._connection.error(f"{tag}: {error.what}", hint="remove the tag") from None


def _entries(data: bytes) -> list[dict[str, Any]]:
    """The manifests that an index lists; BuildError when it is none."""
    try:
        listed = oci.parse(data)["manifests"]
    except (ValueError, KeyError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise BuildError("is no image index")
    return listed
