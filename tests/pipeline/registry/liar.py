# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A registry in memory that can lie, break connections and list referrers: what a real one does not do on demand."""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.sev.registry.login import NOBODY, Login
from tools.sev.registry.reference import Reference

QUICK = Options(plain_http=True, connect=5.0, stall=2.0, rounds=3, first_pause=0.01)
NAME = "team/thing"

Answer = tuple[int, dict[str, str], bytes]
Lie = Callable[["Asked", Answer], Answer | None]
"""From what was asked and the honest answer to another; None breaks the connection. An empty header is left out."""


class Asked:
    """A request; `path` is without the repository's prefix."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target)
        self.method, self.query, self.headers, self.body = method, parse_qs(parts.query), headers, body
        self.path = parts.path.removeprefix(f"/v2/{NAME}/")

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


class Liar:
    """The server. Set `lie` to change its answers; `asked` has what it was asked."""

    def __init__(self, *, api: bool = False) -> None:
        self.api = api
        self.lie: Lie = lambda _, answer: answer
        self.cut_body: Callable[[Asked, int], int | None] = lambda _asked, _length: None
        self.asked: list[Asked] = []
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.uploads: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def client(self, *, part: int = 1 << 20, login: Login = NOBODY, **options: Any) -> Registry:
        chosen = Options(**{**vars(QUICK), **options})
        return Registry(Reference(host=self.host, name=NAME), chosen, find_login=lambda _: login, part=part)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, path: str) -> int:
        return sum(one.method == method and re.match(path, one.path) is not None for one in self.asked)

    def answer(self, asked: Asked) -> Answer:
        """As an honest registry would."""
        with self._lock:
            kind, _, rest = asked.path.partition("/")
            if kind == "blobs" and rest.startswith("uploads/"):
                return self._upload(asked, rest.removeprefix("uploads/"))
            if kind == "blobs":
                return self._blob(asked, rest)
            if kind == "manifests":
                return self._manifest(asked, rest)
            if kind == "referrers" and self.api:
                return 200, {"Content-Type": "application/vnd.oci.image.index.v1+json"}, self._referrers(rest)
            return 404, {}, b""

    def _blob(self, asked: Asked, digest: str) -> Answer:
        if digest not in self.blobs:
            return 404, {}, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}'
        data = self.blobs[digest]
        found = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if found:
            start = int(found[1])
            return 206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:]
        return 200, {"Content-Type": "application/octet-stream"}, data

    def _upload(self, asked: Asked, name: str) -> Answer:
        if asked.method == "POST":
            name = f"u{len(self.uploads)}"
            self.uploads[name] = b""
            return 202, {"Location": f"/v2/{NAME}/blobs/uploads/{name}"}, b""
        if name not in self.uploads:
            return 404, {}, b""
        where = {"Location": f"/v2/{NAME}/blobs/uploads/{name}"}
        if asked.method != "GET":
            self.uploads[name] += asked.body
        state = {**where, "Range": f"0-{max(len(self.uploads[name]) - 1, 0)}"}
        if asked.method == "GET":
            return 204, state, b""
        if asked.method == "PATCH":
            return 202, state, b""
        data, digest = self.uploads.pop(name), asked.query["digest"][0]
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return 400, {}, b'{"errors":[{"code":"DIGEST_INVALID","message":"not these bytes"}]}'
        self.blobs[digest] = data
        return 201, {"Docker-Content-Digest": digest}, b""

    def _manifest(self, asked: Asked, name: str) -> Answer:
        if asked.method == "PUT":
            digest = f"sha256:{hashlib.sha256(asked.body).hexdigest()}"
            if name.startswith("sha256:") and name != digest:
                return 400, {}, b""
            self.manifests[digest] = (asked.headers["content-type"], asked.body)
            if not name.startswith("sha256:"):
                self.tags[name] = digest
            subject = json.loads(asked.body).get("subject", {}).get("digest")
            named = {"OCI-Subject": subject} if subject and self.api else {}
            return 201, {"Docker-Content-Digest": digest, **named}, b""
        digest = name if name.startswith("sha256:") else self.tags.get(name, "")
        if digest not in self.manifests:
            return 404, {}, b""
        kind, data = self.manifests[digest]
        return 200, {"Content-Type": kind, "Docker-Content-Digest": digest}, data

    def _referrers(self, digest: str) -> bytes:
        found = []
        for name, (kind, data) in sorted(self.manifests.items()):
            document = json.loads(data)
            if document.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": kind, "digest": name, "size": len(data)}
                entry |= {key: document[key] for key in ("artifactType", "annotations") if key in document}
                found.append(entry)
        return json.dumps({"schemaVersion": 2, "manifests": found}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what some tests are about."""


def _handler(liar: Liar) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, b"")
            cut = liar.cut_body(asked, length)
            asked.body = self.rfile.read(length if cut is None else cut)
            liar.asked.append(asked)
            answer = None if cut is not None else liar.lie(asked, liar.answer(asked))
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            status, headers, body = answer
            self.send_response(status)
            sent = {"Content-Length": str(len(body)), **headers}
            for name, value in sent.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            if sent["Content-Length"] != str(len(body)):
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    return Handler
