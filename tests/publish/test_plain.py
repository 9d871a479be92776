# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Plain files by PUT, on a server that may stop taking them."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.publish import kit
from tests.publish.kit import wish
from tests.publish.test_signed import MAKERS, write_key
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.publish import bundle, publishing
from tools.pipeline.publish.publishing import Built
from tools.pipeline.registry import connection

LOGIN = "Basic " + base64.b64encode(b"me:secret").decode()


class Files:
    """A server of files that takes PUT; `room` is how many it still takes, `login` what it wants to hear."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room, self.login = kit.empty(folder), 10_000, ""
        self.put: list[str] = []
        files = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __init__(self, *words: Any) -> None:
                super().__init__(*words, directory=str(files.folder))

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                wanted = not files.login or self.headers.get("Authorization") == files.login
                status = 401 if not wanted else 201 if files.room else 507
                if status == 201:
                    files.room -= 1
                    files.put.append(self.path)
                    path = Path(self.translate_path(self.path))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="files"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    server = Files(tmp_path / "www")
    yield server
    server.close()


def test_files_by_name_and_the_list_last(built: Built, files: Files, tmp_path: Path) -> None:
    publishing.run(built, wish(files.url))
    assert files.put[-1] == "/v1/SHA256SUMS"
    for path in built.folder.rglob("*"):
        if path.is_file():
            assert (files.folder / "v1" / path.relative_to(built.folder)).read_bytes() == path.read_bytes()
    assert (files.folder / "v1/sbom.cdx.json").exists()
    layers = json.loads((files.folder / "v1/artifact.json").read_text())["layers"]
    assert len(layers) == 8
    # What has its digest for a name is not sent again.
    files.put.clear()
    publishing.run(built, wish(files.url))
    assert files.put
    assert not [path for path in files.put if path.startswith("/v1/sha256/")]
    cache = Cas(root=tmp_path / "empty")
    pins = [*(one.pin for one in built.sources), *(one.pin for one in built.packages)]
    bundle.bring(pins, bundle.Wish(source=files.url, ca="", plain_http=True), cas=cache, root=built.root)
    assert all(cache.verified(pin.sha256, pin.size) for pin in pins)


@pytest.mark.parametrize("room", [0, 2, 5, 10])
def test_a_server_that_is_full_has_no_list(built: Built, files: Files, room: int) -> None:
    files.room = room
    with pytest.raises(BuildError, match=f"{files.host}/v1: 507"):
        publishing.run(built, wish(files.url))
    assert len(files.put) == room
    assert not (files.folder / "v1/SHA256SUMS").exists()
    files.room = 100
    publishing.run(built, wish(files.url))
    assert (files.folder / "v1/SHA256SUMS").exists()


def test_another_artifact_is_left_alone(built: Built, files: Files) -> None:
    (files.folder / "v1").mkdir()
    (files.folder / "v1/SHA256SUMS").write_text("of another\n")
    with pytest.raises(UserError, match="another artifact is there"):
        publishing.run(built, wish(files.url))
    assert not files.put


def test_login_and_protection(built: Built, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--to: is not protected; https:, or --plain-http"):
        publishing.run(built, wish(files.url, plain_http=False))
    files.login = LOGIN
    with pytest.raises(BuildError, match="wants to know who you are"):
        publishing.run(built, wish(files.url))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auth = LOGIN.partition(" ")[2]
    (tmp_path / "config.json").write_text(json.dumps({"auths": {files.host: {"auth": auth}}}))
    publishing.run(built, wish(files.url))
    assert files.put
    with pytest.raises(UserError, match="is not a URL that files can be below"):
        publishing.run(built, wish(f"http://me:secret@{files.host}/v1"))
    assert connection.Options().plain_http is False


def test_a_signature_lies_beside_them(built: Built, files: Files, tmp_path: Path) -> None:
    key, _ = write_key(MAKERS["ed25519"](), tmp_path, "ours")
    publishing.run(built, wish(files.url, key=key))
    found = json.loads((files.folder / "v1/provenance.sigstore.json").read_text())
    assert found["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert not (files.folder / "v1/provenance.json").exists()
