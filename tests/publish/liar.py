# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A registry that lies: a real one behind a server that changes its answers."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEPT = ("Content-Type", "Docker-Content-Digest", "Content-Range")


@dataclass
class Answer:
    """What the real one says. `length` is what Content-Length claims; None: no such header, and no chunks either."""

    path: str
    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = field(default=0)


class Liar:
    """At `host`; `change` makes of a true answer what is sent."""

    def __init__(self, real: str, change: Callable[[Answer], None]) -> None:
        self.asked: list[str] = []
        self.authorizations: list[str] = []
        self.ranges: list[tuple[str, str]] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                liar.asked.append(self.path)
                liar.authorizations.append(self.headers.get("Authorization", ""))
                liar.ranges.append((self.path, self.headers.get("Range", "")))
                connection = http.client.HTTPConnection(real)
                sent = {name: self.headers[name] for name in ("Accept", "Range", "Authorization") if self.headers[name]}
                connection.request("GET", self.path, headers=sent)
                true = connection.getresponse()
                body = true.read()
                headers = {name: true.headers[name] for name in KEPT if name in true.headers}
                answer = Answer(self.path, true.status, headers, body, len(body))
                connection.close()
                change(answer)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.length is not None:
                    self.send_header("Content-Length", str(answer.length))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
