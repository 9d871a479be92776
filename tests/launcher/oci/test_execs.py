# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What engines hand to exec: an entry of a closed document only if it is exactly that, anything in an open one."""

import json
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import captured, execs, parsed, translated
from tools.launcher.base.errors import UserError
from tools.launcher.oci import config
from tools.launcher.oci.container import ContainerProcess
from tools.launcher.oci.execs import entry_of, spawned
from tools.launcher.oci.settings import Command, Openness, Settings

CAPTURED = ["docker-20.10", "docker-26.1", "podman-4.3"]
NAMED = Settings(exec=(Command(argv=("false",)), Command(argv=("true",)), Command(argv=("true",), terminal=True)))


def asked(engine: str, name: str, **changes: Any) -> ContainerProcess:
    value = execs(engine)[name]
    value["env"] = [
        entry.replace(entry[9:], "1" * 12) if entry.startswith("HOSTNAME=") else entry for entry in value["env"]
    ]
    return config.process(json.dumps({**value, **changes}).encode())


@pytest.mark.parametrize("engine", CAPTURED)
def test_an_entry_is_found_when_it_is_exactly_that(engine: str) -> None:
    container = parsed(captured(engine))
    document = translated(captured(engine), settings=NAMED).document
    assert entry_of(document, container, asked(engine, "exec")) == 2
    assert entry_of(document, container, asked(engine, "exectty")) == 3
    for other in (
        asked(engine, "exec", args=["true", "-x"]),
        asked(engine, "exec", cwd="/tmp"),
        asked(engine, "exec", user={"uid": 0, "gid": 5}),
        asked(engine, "exec", env=["PATH=/x"]),
        asked(engine, "execuser"),
        asked(engine, "execprivileged" if engine.startswith("docker") else "execuser"),
    ):
        assert entry_of(document, container, other) is None


@pytest.mark.parametrize("engine", CAPTURED)
def test_any_command_where_that_is_open_with_no_more_than_the_container_has(engine: str) -> None:
    container = parsed(captured(engine))
    document = translated(captured(engine), settings=Settings(openness=Openness.OPEN)).document
    process = spawned(document, container, asked(engine, "execuser"), stdin=False)
    assert process.argv == [b"true"]
    assert (process.uid, process.gid, process.cwd) == (1000, 1001, b"/tmp")
    assert 2000 in process.groups
    assert b"A=b" in process.env
    assert any(entry.startswith(b"HOME=/") for entry in process.env)
    assert process.stdin_at_end
    assert process.size is None
    assert spawned(document, container, asked(engine, "exectty"), stdin=False).size == (0, 0)


@pytest.mark.parametrize("engine", ["docker-20.10", "docker-26.1"])
def test_a_privileged_one_is_refused_even_there(engine: str) -> None:
    document = translated(captured(engine), settings=Settings(openness=Openness.OPEN)).document
    with pytest.raises(UserError, match=r"refused \(from exec --privileged\)"):
        spawned(document, parsed(captured(engine)), asked(engine, "execprivileged"), stdin=False)


def test_the_groups_of_an_entry_are_the_processes_own() -> None:
    user = captured("podman-4.3", "imageuser")
    document = translated(user, settings=Settings(exec=(Command(argv=("true",)),))).document
    process = asked("podman-4.3", "execuser", cwd="/tmp")
    env = [entry for entry in process.environment if entry != "A=b"]
    exact = asked("podman-4.3", "execuser", env=[*env, "FOO=bar"])
    assert entry_of(document, parsed(user), exact) == 1
    assert entry_of(document, parsed(user), process) is None
