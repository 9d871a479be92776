# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""config.json of real engines is read; what a guest cannot have is refused, beside what it can."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import ENGINES, captured, execs, parsed, translated, variants
from tools.launcher.base.errors import UserError
from tools.launcher.oci import config
from tools.launcher.oci.container import Hook

REFUSED = {
    "privileged": "--privileged",
    "device": "--device",
    "cgrule": "--device-cgroup-rule",
    "pidhost": "--pid host",
    "ipchost": "--ipc host",
    "utshost": "--uts host",
    "nethost": "--network host",
    "netcontainer": "--network container:",
    "pidcontainer": "--pid container:",
    "userns": "--userns",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_writes_is_read_or_refused_by_the_options_name(engine: str) -> None:
    found = variants(engine)
    assert {"default", "options", "privileged", "device", "nethost", "pidhost", "ipchost", "utshost"} <= set(found)
    for variant in found:
        if variant not in REFUSED:
            parsed(captured(engine, variant))
            continue
        with pytest.raises(UserError) as caught:
            parsed(captured(engine, variant))
        line = str(caught.value)
        assert REFUSED[variant] in line
        assert line.startswith("config.json: linux.")
        assert "\n" not in line


def test_values_of_an_engine(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(captured("docker-26.1", "options")))
    container = config.read(tmp_path)
    process = container.process
    assert process.argv == ("/sbin/docker-init", "--", "true")
    assert (process.uid, process.gid, process.groups, process.cwd) == (1000, 1001, (1001, 2000), "/tmp")
    assert process.no_new_privileges
    assert not process.terminal
    assert [(limit.name, limit.soft, limit.hard) for limit in process.rlimits] == [("nofile", 1024, 2048)]
    # Docker writes them as permitted; exec takes them from a user who is not root.
    assert "syslog" in process.capabilities.bounding
    assert process.capabilities.permitted == ()
    assert container.hostname == "web.example"
    assert container.read_only_root
    assert container.resources.memory == 256 << 20
    assert container.resources.cpus == 2
    assert container.sysctls["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert container.hooks.prestart == (Hook(path="/proc/1234/exe", args=container.hooks.prestart[0].args),)
    assert container.hooks.prestart[0].args[0] == "libnetwork-setkey"
    assert container.seccomp is not None


def test_ambient_capabilities_stay() -> None:
    sets = parsed(captured("podman-4.3", "sysadmin")).process.capabilities
    assert sets.ambient == sets.permitted == sets.effective == ("sys_admin",)


def test_a_network_namespace_has_a_path() -> None:
    assert parsed(captured("podman-5.4", "bridge")).network_namespace.startswith("/run/netns/")
    assert parsed(captured("podman-5.4")).network_namespace == ""


@pytest.mark.parametrize("engine", ["docker-20.10", "docker-26.1"])
def test_what_is_handed_to_exec(engine: str) -> None:
    found = {name: config.process(json.dumps(value).encode()) for name, value in execs(engine).items()}
    assert found["exec"].argv == ("true",)
    assert (found["execuser"].uid, found["execuser"].cwd) == (1000, "/tmp")
    assert found["exectty"].terminal
    assert len(found["execprivileged"].capabilities.bounding) > len(found["exec"].capabilities.bounding)


def test_home_is_the_users_and_no_link_is_followed(tmp_path: Path) -> None:
    etc = tmp_path / "root/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    value = captured("docker-26.1", "imageuser")
    value["root"]["path"] = "root"

    def home() -> str:
        (tmp_path / "config.json").write_text(json.dumps(value))
        return config.read(tmp_path).home

    assert home() == "/home/app"
    (etc / "passwd").rename(tmp_path / "elsewhere")
    (etc / "passwd").symlink_to(tmp_path / "elsewhere")
    assert home() == "/"


def test_a_file_that_is_none_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: No such file"):
        config.read(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json: Is a directory"):
        config.read(tmp_path)
    (tmp_path / "config.json").rmdir()
    (tmp_path / "config.json").write_bytes(b" " * (config.SIZE_MAX + 1))
    with pytest.raises(UserError, match=r"larger than"):
        config.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested too deeply"),
        ("[]", "no JSON object"),
        ("{}", "ociVersion"),
        ('{"ociVersion":"2.0.0"}', "ociVersion"),
    ],
)
def test_what_is_no_config(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config.parse(text.encode())


ODD: tuple[Any, ...] = (
    None, 0, -1, 1 << 70, 1.5, True, "", "x", "/", "/a/../b", "\0", "\ud800", [], {}, [[]], [None], {"a": 1},
    ["x" * 9000], "€", "a=b", "\n\x1b[31m",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:3]):
            found += places(inner, (*path, number))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_whatever_stands_in_it_there_is_one_line(engine: str) -> None:
    chance = random.Random(4)
    whole = captured(engine, "options")
    lines = []
    for path in places(whole):
        for odd in chance.sample(ODD, 4):
            value = json.loads(json.dumps(whole))
            here = value
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = odd
            try:
                translated(value)
            except UserError as error:
                lines.append(str(error))
    assert len(lines) > 100
    assert all(line.isprintable() and len(line) < 600 for line in lines)
