# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Plain files on a server that takes PUT, below one URL, which is one artifact's for ever.

    what has its digest for a name ── what has a name ── the list of digests, last

Until the list is there, nothing is published; and where another list is, nothing is written.
"""

import urllib.parse
from collections.abc import Sequence

from tools.pipeline.base import ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.registry import login, upload
from tools.pipeline.registry.connection import Connection, Options
from tools.pipeline.registry.oci import Content
from tools.pipeline.registry.target import Tally
from tools.sev.registry.reference import Reference

_GOOD = (200, 201, 204)
_OCTETS = {"Content-Type": "application/octet-stream"}


class Plain:
    """A URL and what is below it. Who we are comes from docker's config, as for registries; HTTP's Basic only."""

    def __init__(self, url: str, options: Options) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname:
            raise UserError("is not a URL that files can be below", where="--to", hint="https://HOST/PATH")
        if parts.scheme == "http" and not options.plain_http:
            raise UserError("is not protected", where="--to", hint="https:, or --plain-http")
        place = Reference(host=parts.netloc, name=parts.path.strip("/"))
        self._connection = Connection(place, options, login.find)
        self._url = url.rstrip("/")

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    def push(
        self, by_digest: Sequence[Content], named: Sequence[tuple[str, Content]], last: tuple[str, Content]
    ) -> Tally:
        """Put everything there, `last` last. UserError when another artifact is there."""
        tally = Tally()
        name, content = last
        there = self._read(name, content.descriptor.size)
        if there is not None and there != content.open().read():
            raise UserError("another artifact is there", where=f"--to {self._url}", hint="publish to a URL of its own")
        with ui.working("publishing", detail=lambda: str(tally)):
            for one in by_digest:
                path = digest_path(one.descriptor.sha256)
                if self._has(path, one.descriptor.size):
                    tally.there += 1
                else:
                    self._put(path, one, tally)
            # Their names say nothing of their bytes, so they are always sent.
            for path, one in named:
                self._put(path, one, tally)
            self._put(name, content, tally)
        return tally

    def _has(self, path: str, size: int) -> bool:
        def ask() -> bool:
            with self._connection.request("HEAD", self._place(path), good=(200, 404)) as response:
                return response.status_code == 200 and response.headers.get("Content-Length") == str(size)

        return self._connection.patiently(ask)

    def _read(self, path: str, size: int) -> bytes | None:
        """The first `size` bytes and one; None when there is no such file."""

        def ask() -> bytes | None:
            with self._connection.request("GET", self._place(path), good=(200, 404)) as response:
                if response.status_code == 404:
                    return None
                return b"".join(self._connection.chunks(response, size + 1))

        return self._connection.patiently(ask)

    def _put(self, path: str, content: Content, tally: Tally) -> None:
        tally.now = path
        size = content.descriptor.size
        body = upload.Part(content, 0, size) if size else b""

        def put() -> None:
            with self._connection.request("PUT", self._place(path), good=_GOOD, headers=_OCTETS, body=lambda: body):
                pass

        self._connection.patiently(put)
        tally.sent += 1
        tally.bytes_sent += size

    def _place(self, path: str) -> str:
        return f"{self._url}/{urllib.parse.quote(path)}"


def digest_path(sha256: str) -> str:
    """Where a source bundle has a file."""
    return f"sha256/{sha256[:2]}/{sha256}"
