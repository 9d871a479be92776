# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch pull` and answers that are made to make it fall, or talk: one clear line each, and no login elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.publish import kit
from tests.publish.kit import Server
from tests.publish.liar import Answer, Liar
from tests.publish.people import NAME, World
from tests.publish.pull.test_pull_login import login
from tools.launcher.pull import registry
from tools.sev.formats import BUNDLE_TYPE


@pytest.mark.parametrize("target", ["http://[", "http://[::1", "//[x]/", "/v2/\xe9", "http://\xe9/", "http://h:x/"])
def test_redirects_to_what_is_no_url(world: World, liar: Callable[..., Liar], target: str) -> None:
    def away(answer: Answer) -> None:
        answer.status, answer.body, answer.length = 307, b"", 0
        answer.headers["Location"] = target

    world.refused("redirects us to", ref=f"{liar(away).host}/{NAME}:v1")


def test_a_redirect_to_a_name_that_no_host_has(world: World, liar: Callable[..., Liar]) -> None:
    def away(answer: Answer) -> None:
        answer.status, answer.body, answer.length = 307, b"", 0
        answer.headers["Location"] = "http://a..example/"

    world.refused("is no name of a host", "--allow-host", "a..example", ref=f"{liar(away).host}/{NAME}:v1")


def test_a_length_of_thousands_of_digits(world: World, liar: Callable[..., Liar]) -> None:
    """Which Python would not convert: as if nothing was said, in a manifest and in a blob."""

    def long(answer: Answer) -> None:
        answer.length = None
        answer.headers["Content-Length"] = "9" * 5000

    world.accepted(ref=f"{liar(long).host}/{NAME}:v1")


def test_statements_without_end(world: World, liar: Callable[..., Liar], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound nothing is read; what was read counts, and the line says that there is more."""
    monkeypatch.setattr(registry, "_ROOM", 3 * registry._LEAST)

    def many(answer: Answer) -> None:
        if answer.status != 200 or "/manifests/" not in answer.path:
            return
        document = json.loads(answer.body)
        if document.get("artifactType") != BUNDLE_TYPE:
            return
        document["layers"] *= 100
        answer.body = json.dumps(document).encode()
        answer.length = len(answer.body)
        answer.headers.pop("Docker-Content-Digest", None)

    one = liar(many)
    world.refused("endorsed by", ref=f"{one.host}/{NAME}:v1")
    world.accepted()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_statements_of_strangers_before_ours_and_behind(world: World, liar: Callable[..., Liar], before: int) -> None:
    """However many there are: as many as all that are looked at lie between ours."""

    def many(answer: Answer) -> None:
        if answer.status != 200 or "/manifests/sha256-" not in answer.path:
            return
        document = json.loads(answer.body)
        ours = document["manifests"]
        assert len(ours) == 3
        document["manifests"] = [*ours[:before], *[{**ours[0], "digest": f"sha256:{0:064x}"}] * 300, *ours[before:]]
        answer.body = json.dumps(document).encode()
        answer.length = len(answer.body)
        answer.headers.pop("Docker-Content-Digest", None)

    world.accepted(ref=f"{liar(many).host}/{NAME}:v1")


def test_the_login_is_not_told_to_where_bytes_come_from(
    make_server: Callable[..., Server],
    make_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """An allowed host that asks for a token at a realm of its own, which is allowed as well."""
    server = make_server(login=True)
    made = make_world(host=server.host)
    login(tmp_path, monkeypatch, server.host, kit.PASSWORD)
    made.publish()
    made.endorse("alice", "bob")

    def asks(answer: Answer) -> None:
        answer.status = 401
        answer.headers["WWW-Authenticate"] = f'Bearer realm="http://{elsewhere.host}/token",service="x"'

    elsewhere = Liar(server.host, asks)

    def away(answer: Answer) -> None:
        if answer.status == 200 and "/blobs/" in answer.path:
            answer.status, answer.body, answer.length = 307, b"", 0
            answer.headers["Location"] = f"http://{elsewhere.host}{answer.path}"
        elif answer.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="test"'

    front = Liar(server.host, away)
    login(tmp_path, monkeypatch, front.host, kit.PASSWORD)
    made.refused("401", "--allow-host", elsewhere.host, ref=f"{front.host}/{NAME}:v1")
    assert elsewhere.asked
    assert not any("token" in path for path in elsewhere.asked)
    assert not any(elsewhere.authorizations)
    assert any(front.authorizations)
    front.close()
    elsewhere.close()
