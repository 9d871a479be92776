# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who we are to a registry, and to whom that is said."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.registry.liar import NAME, Answer, Asked, Liar
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.registry import login, oci, reference
from tools.sev.registry.login import NOBODY, Login

BLOB = oci.of_bytes(b"content", "text/plain")
ME = Login(user="me", password="pass:word")
BASIC = "Basic " + base64.b64encode(b"me:pass:word").decode()


@pytest.fixture
def liar() -> Iterator[Liar]:
    server = Liar()
    yield server
    server.close()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def demand(liar: Liar, challenge: str, wanted: str) -> None:
    def lie(asked: Asked, answer: Answer) -> Answer:
        if asked.path == "/token":
            return answer
        good = asked.headers.get("authorization") == wanted
        return answer if good else (401, {"WWW-Authenticate": challenge}, b"")

    liar.lie = lie


def test_user_and_password(liar: Liar) -> None:
    demand(liar, 'Basic realm="test"', BASIC)
    assert liar.client(login=ME).blob(BLOB)
    with pytest.raises(BuildError, match=f"wants to know who you are; log in first: docker login {liar.host}"):
        liar.client().blob(BLOB)
    with pytest.raises(BuildError, match="does not accept the login") as caught:
        liar.client(login=Login(user="me", password="guess")).blob(BLOB)
    assert "guess" not in str(caught.value)
    assert "guess" not in repr(Login(user="me", password="guess"))


@pytest.mark.parametrize("field", ["token", "access_token"])
@pytest.mark.parametrize("who", [ME, Login(token="identity"), NOBODY])
def test_a_token_from_the_realm(liar: Liar, who: Login, field: str) -> None:
    challenge = f'Bearer realm="http://{liar.host}/token",service="test",scope="repository:{NAME}:pull"'
    demand(liar, challenge, "Bearer abc")
    honest = liar.answer

    def answer(asked: Asked) -> Answer:
        return (200, {}, json.dumps({field: "abc"}).encode()) if asked.path == "/token" else honest(asked)

    liar.answer = answer  # type: ignore[method-assign]
    assert liar.client(login=who).blob(BLOB)
    (token,) = [one for one in liar.asked if one.path == "/token"]
    assert token.headers.get("authorization", "") == (BASIC if who == ME else "")
    if who.token:
        assert b"refresh_token=identity" in token.body
    else:
        assert token.query["scope"] == [f"repository:{NAME}:pull,push"]


def test_a_realm_that_is_not_protected_learns_nothing(liar: Liar) -> None:
    """With TLS to the registry, a realm without: only the scheme is looked at, before anything is sent."""
    challenge = f'Bearer realm="ftp://{liar.host}/token"'
    demand(liar, challenge, "Bearer abc")
    with pytest.raises(BuildError, match="sends us to ftp:, which is not protected"):
        liar.client(login=ME).blob(BLOB)
    assert all("authorization" not in one.headers for one in liar.asked)


def test_a_redirect_to_elsewhere_gets_the_request_and_no_login(liar: Liar) -> None:
    elsewhere = Liar()
    try:
        liar.client().blob(BLOB)
        elsewhere.blobs = dict(liar.blobs)
        demand(liar, 'Basic realm="test"', BASIC)
        known = liar.lie

        def lie(asked: Asked, answer: Answer) -> Answer | None:
            said = known(asked, answer)
            if said is not None and said[0] == 200:
                return 307, {"Location": f"http://{elsewhere.host}/v2/{NAME}/{asked.path}"}, b""
            return said

        liar.lie = lie
        assert liar.client(login=ME).read(BLOB.descriptor) == b"content"
        assert elsewhere.asked
        assert all("authorization" not in one.headers for one in elsewhere.asked)
    finally:
        elsewhere.close()


def test_netrc_is_not_asked(liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password netrc\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    liar.client().blob(BLOB)
    assert all("authorization" not in one.headers for one in liar.asked)


def test_dockers_config(config: Path) -> None:
    assert login.find("registry.example") == NOBODY
    auth = base64.b64encode(b"me:pass:word").decode()
    config.write_text(json.dumps({"auths": {"registry.example": {"auth": auth}, "https://old.example/v1/": {
        "auth": auth}, "token.example": {"auth": "", "identitytoken": "t"}}}))  # fmt: skip
    assert login.find("registry.example") == ME
    assert login.find("old.example") == ME
    assert login.find("token.example") == Login(token="t")
    assert login.find("other.example") == NOBODY
    config.write_text('{"auths": {"registry.example": {"auth": "?secret?"}}}')
    with pytest.raises(UserError, match=r"config.json: auths.registry.example: auth is not the base64") as caught:
        login.find("registry.example")
    assert "secret" not in str(caught.value)
    config.write_text("[]")
    with pytest.raises(UserError, match=r"is no docker config\.json"):
        login.find("registry.example")


def helper(config: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = config.parent / "docker-credential-test"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{config.parent}:/usr/bin:/bin")


def test_credential_helpers(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('{"credHelpers": {"registry.example": "test"}, "auths": {"registry.example": {}}}')
    with pytest.raises(UserError, match="docker-credential-test is not installed"):
        login.find("registry.example")
    helper(
        config,
        monkeypatch,
        """[ "$1" = get ] && [ "$(cat)" = registry.example ] &&
        echo '{"ServerURL":"x","Username":"me","Secret":"pass:word"}'""",
    )
    assert login.find("registry.example") == ME
    assert login.find("other.example") == NOBODY
    helper(config, monkeypatch, """echo '{"Username":"<token>","Secret":"t"}'""")
    assert login.find("registry.example") == Login(token="t")
    helper(config, monkeypatch, "echo credentials not found in native keychain; exit 1")
    assert login.find("registry.example") == NOBODY
    helper(config, monkeypatch, "echo secret; exit 1")
    with pytest.raises(UserError, match="docker-credential-test ended with status 1") as caught:
        login.find("registry.example")
    assert "secret" not in str(caught.value)
    config.write_text('{"credsStore": "../evil"}')
    with pytest.raises(UserError, match="is no name of a credential helper"):
        login.find("registry.example")


GOOD = {
    "registry.example/a": ("registry.example", "a", "", ""),
    "localhost/a/b:v1": ("localhost", "a/b", "v1", ""),
    "127.0.0.1:5000/team/x__y:V_1.2-3": ("127.0.0.1:5000", "team/x__y", "V_1.2-3", ""),
    "[::1]:5000/a": ("[::1]:5000", "a", "", ""),
    f"registry.example:5000/a:v@sha256:{'ab' * 32}": ("registry.example:5000", "a", "v", f"sha256:{'ab' * 32}"),
}
BAD = ["a", "library/a", "registry.example/", "registry.example/A", "registry.example/a:", "registry.example/a:b:c",
       "registry.example/a@sha256:1", "registry.example/a/../b", "user@registry.example/a", "a b.c/d"]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_references(text: str) -> None:
    found = reference.parse(text, where="--to")
    assert (found.host, found.name, found.tag, found.digest) == GOOD[text]
    assert str(found) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UserError, match=r"^--to: "):
        reference.parse(text, where="--to")
