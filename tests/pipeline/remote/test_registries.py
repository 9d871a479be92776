# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Real registries as teams have them: with a login, with TLS of their own authority, and with a disk that is full."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote import kit
from tests.pipeline.remote.conftest import Machines
from tests.publish.kit import PASSWORD, USER, Server

RAN, TAKEN = "run here", "cache 127.0.0.1"
STEP = shell("echo one >/out/out", name="one")

MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(registry_program: Path, tmp_path: Path) -> Iterator[MakeServer]:
    """make_server(login=…, tls=…, disk=BYTES): a registry that has started."""
    made: list[Server] = []

    def make(*, login: bool = False, tls: bool = False, disk: int = 0) -> Server:
        folder, program = tmp_path / f"server{len(made)}", registry_program
        if disk:
            (folder / "data").mkdir(parents=True)
            program = folder / "program"
            program.write_text(
                f'#!/bin/sh\nexec bwrap --dev-bind / / --size {disk} --tmpfs {folder}/data {registry_program} "$@"\n'
            )
            program.chmod(0o755)
        server = Server(program=program, folder=folder, login=login, tls=tls)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.kill()


def login(folder: Path, server: Server, password: str) -> str:
    """A folder as `docker login` leaves it."""
    folder.mkdir()
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
    return str(folder)


def test_login(
    machine: Machines,
    make_server: MakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = make_server(login=True)
    place = f"{server.host}/team/cache"
    # Nobody, and somebody with a wrong password: the build goes on, and says why it is alone.
    for name, folder in (("nobody", "/nonexistent"), ("stranger", login(tmp_path / "wrong", server, "wrong"))):
        monkeypatch.setenv("DOCKER_CONFIG", folder)
        assert machine(name, at=place, pushes="ci").build(STEP) == {"one": RAN}
        said = capfd.readouterr().err
        assert f"docker login {server.host}" in said
        assert said.count("goes on without it") == 1, said
        assert "wrong" not in said
    assert not server.tags("team/cache")
    monkeypatch.setenv("DOCKER_CONFIG", login(tmp_path / "right", server, PASSWORD))
    machine("ci", at=place, pushes="ci").build(STEP)
    assert machine("other", at=place).build(STEP)["one"].startswith(TAKEN)


def test_tls(
    machine: Machines, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    server, impostor = make_server(tls=True), make_server(tls=True)
    place = f"{server.host}/team/cache"
    machine("ci", at=place, pushes="ci", ca=server.ca).build(STEP)
    assert machine("other", at=place, ca=server.ca).build(STEP)["one"].startswith(TAKEN)
    capfd.readouterr()
    # Another authority: whoever sits between sees neither what is asked for nor a login.
    assert machine("careful", at=place, ca=impostor.ca).build(STEP) == {"one": RAN}
    said = capfd.readouterr().err
    assert "remote.toml: [registry] ca = FILE names" in said
    assert said.count("certificate was not accepted") == said.count("goes on without it") == 1, said


def test_a_full_disk(machine: Machines, make_server: MakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    """No tag stands on what did not find room; what was there before is still taken."""
    server = make_server(disk=1 << 20)
    place = f"{server.host}/team/cache"
    machine("before", at=place, pushes="ci").build(STEP)
    big = shell("head -c 3000000 /dev/urandom >/out/out", name="big")
    capfd.readouterr()
    found = machine("ci", at=place, pushes="ci").build(STEP, big)
    assert found["one"].startswith(TAKEN)
    assert found["big"] == RAN
    assert capfd.readouterr().err.count("does not take results") == 1
    assert machine("other", at=place).build(STEP, big)["big"] == RAN
    assert machine("last", at=place).build(STEP)["one"].startswith(TAKEN)
    tags = kit.registry(place)
    assert tags.resolve("latest") is None, "the registry still answers"
