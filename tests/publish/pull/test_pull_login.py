# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch pull` and who it speaks to: logins, TLS, references, registries that have nothing."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loopback import free_port
from tests.publish import kit
from tests.publish.kit import Server
from tests.publish.liar import Answer, Liar
from tests.publish.people import NAME, World
from tools.pipeline.base.errors import BuildError


def test_login_and_tls(
    make_server: Callable[..., Server],
    make_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server = make_server(login=True, tls=True)
    login(tmp_path, monkeypatch, server.host, kit.PASSWORD)
    made = make_world(host=server.host, options=(), ca=str(server.ca))
    made.publish()
    made.endorse("alice", "bob")
    made.accepted("pulled", "--ca", str(server.ca))
    made.refused("its certificate was not accepted")
    made.refused("answers with no HTTP|400 Bad Request", "--plain-http")
    login(tmp_path, monkeypatch, server.host, "wrong")
    assert "wrong" not in made.refused("does not accept the login", "--ca", str(server.ca))
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    made.refused("wants to know who you are", "--ca", str(server.ca))


def login(folder: Path, monkeypatch: pytest.MonkeyPatch, host: str, password: str) -> None:
    auth = base64.b64encode(f"{kit.USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_the_login_is_told_to_the_registry_only(
    make_server: Callable[..., Server],
    make_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Not where it redirects to, not even when that is allowed; nor to a realm elsewhere."""
    server = make_server(login=True)
    login(tmp_path, monkeypatch, server.host, kit.PASSWORD)
    made = make_world(host=server.host)
    made.publish()
    made.endorse("alice", "bob")
    elsewhere = Liar(server.host, lambda _: None)

    def away(answer: Answer) -> None:
        if answer.status == 200 and "/blobs/" in answer.path:
            answer.status, answer.body, answer.length = 307, b"", 0
            answer.headers["Location"] = f"http://{elsewhere.host}{answer.path}"

    def realm(answer: Answer) -> None:
        answer.status = 401
        answer.headers["WWW-Authenticate"] = f'Bearer realm="http://{elsewhere.host}/token",service="x"'

    def basic(answer: Answer) -> None:
        away(answer)
        if answer.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="test"'

    liars = [Liar(server.host, change) for change in (basic, realm)]
    for one in liars:
        login(tmp_path, monkeypatch, one.host, kit.PASSWORD)
        made.refused(f"us (for a token )?to {elsewhere.host}", ref=f"{one.host}/{NAME}:v1")
    assert not elsewhere.asked
    login(tmp_path, monkeypatch, liars[0].host, kit.PASSWORD)
    # The registry behind would ask there for the login, and gets none.
    made.refused("401|kind that is not known", "--allow-host", elsewhere.host, ref=f"{liars[0].host}/{NAME}:v1")
    assert elsewhere.asked
    assert not any(elsewhere.authorizations)
    assert any(liars[0].authorizations)
    for one in (*liars, elsewhere):
        one.close()


def test_plain_http_is_for_this_machine_only(world: World) -> None:
    for host in ("registry.example", "192.0.2.1:5000", "127.0.0.1.example:5000"):
        status, said = world.pull(ref=f"{host}/{NAME}:v1")
        assert status == 2
        assert "is for a registry on this machine only" in said


@pytest.mark.parametrize("ref", ["thing:v1", "127.0.0.1:1/thing", "127.0.0.1:1/Thing:v1", "127.0.0.1:1/thing@sha256:1"])
def test_references_that_are_none(world: World, ref: str) -> None:
    status, _ = world.pull(ref=ref)
    assert status == 2
    assert not (world.folder / "pulled").exists()


def test_nobody_listens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    world.refused(r"Connection refused \(4 tries\)", ref=f"127.0.0.1:{free_port()}/{NAME}:v1")


def test_what_is_no_artifact_of_ours(world: World, make_world: Callable[..., World], server: Server) -> None:
    with pytest.raises(BuildError, match="publish it first"):
        world.latest("alice", tag="v3")
    world.latest("alice")
    world.refused("is no artifact of ./doit publish", ref=f"{server.host}/{NAME}:production.latest")
    world.refused("has no v3", ref=f"{server.host}/{NAME}:v3")
