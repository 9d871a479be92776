# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What engines write becomes a workload document: what was asked for stands in it, what they invent is open."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import ENGINES, captured, translated
from tools.launcher.base.errors import UserError
from tools.launcher.oci.settings import Command, Openness, Settings
from tools.launcher.oci.translate import SIGNALS
from tools.sev.workload.openings import openings


def mount(value: Any, target: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in value["mounts"] if one["destination"] == target)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_does_by_default_has_its_name(engine: str) -> None:
    name, number = f"{engine.partition('-')[0]}-1", ENGINES[engine]
    own = f"{name[:-1]}{number}"
    value = json.loads(translated(captured(engine)).document.data)
    assert value["process"]["seccomp"] == own
    assert value["masked_paths"] == own
    # Both versions have the same ones: one value has one name.
    assert value["process"]["capabilities"] == name
    assert value["read_only_paths"] == name


@pytest.mark.parametrize("engine", ENGINES)
def test_another_value_stands_in_the_document(engine: str) -> None:
    value = json.loads(translated(captured(engine, "capdrop")).document.data)
    assert value["process"]["capabilities"]["bounding"] == []
    assert value["process"]["seccomp"]["rules"]
    assert json.loads(translated(captured(engine, "unconfined")).document.data)["process"]["seccomp"] == "none"
    value = json.loads(translated(captured(engine, "systempaths")).document.data)
    assert value["masked_paths"] == value["read_only_paths"] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_options_stand_in_the_document(engine: str) -> None:
    done = translated(captured(engine, "options"), network=True, stdin=True)
    document = done.document
    process = document.process
    # Without the engine's init, which is mounted for it: the guest has its own.
    assert process.argv == ("true",)
    assert {"A=b", "FOO=bar", "HOSTNAME=web.example"} <= set(process.environment)
    assert list(process.environment) == sorted(process.environment)
    assert (process.uid, process.gid, process.groups, process.cwd) == (1000, 1001, (1001, 2000), "/tmp")
    assert process.no_new_privileges
    assert process.umask == 0o022
    assert process.host.stdin
    assert not process.host.environment
    assert document.hostname == "web.example"
    assert not document.host_names_it
    assert document.read_only_root
    tmpfs = {one.target: (one.length, one.mode, one.executable) for one in document.mounts}
    assert tmpfs["/scratch"] == (16 << 20, "1770", True)
    assert ("net.ipv4.ip_unprivileged_port_start", "0") in [(one.name, one.value) for one in document.sysctls]
    assert document.network == "ethernet"
    assert (done.vcpus, done.memory_mib) == (2, 256)
    assert not document.folders
    # A volume that nobody named is memory, and that is said.
    assert "/data" in tmpfs
    assert any("/data" in note for note in done.notes)


def test_what_an_engine_invents_is_the_hosts(tmp_path: Path) -> None:
    value = captured("docker-26.1")
    for name in ("hosts", "hostname", "resolv.conf"):
        source = tmp_path / name
        source.write_text(f"of {name}")
        mount(value, f"/etc/{name}")["source"] = str(source)
    done = translated(value)
    assert done.document.host_names_it
    assert done.hostname == value["hostname"]
    assert done.environment == (f"HOSTNAME={value['hostname']}".encode(),)
    assert [one.name for one in done.document.process.host.environment] == ["HOSTNAME"]
    targets = [file.target for file in done.document.files]
    assert targets == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
    assert done.files() == {0: b"of hostname", 1: b"of hosts", 2: b"of resolv.conf"}
    (tmp_path / "hosts").write_bytes(b"#" * (done.document.files[1].length + 1))
    with pytest.raises(UserError, match=r"hosts: larger than"):
        done.files()


def test_two_containers_of_an_image_have_one_document() -> None:
    one, other = captured("docker-26.1"), captured("docker-26.1")
    text = json.dumps(other).replace("1" * 12, "abcdef012345")
    assert text != json.dumps(one)
    assert translated(one).document.data == translated(json.loads(text)).document.data
    assert translated(json.loads(text)).hostname == "abcdef012345"


def test_docker_and_podman_are_told_apart_by_their_files() -> None:
    assert "/.dockerenv" in [file.target for file in translated(captured("docker-20.10")).document.files]
    targets = [file.target for file in translated(captured("podman-5.4", "bridge")).document.files]
    assert targets == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"]


def test_containerds_own_client() -> None:
    document = translated(captured("containerd-1.7")).document
    assert document.process.no_new_privileges
    # It has a filter only where it is asked for one, and invents neither a name nor files.
    assert document.process.seccomp is False
    assert not document.files
    assert not document.host_names_it
    assert {one.target: one.mode for one in document.mounts} == {"/run": "0755", "/dev/shm": "1777"}
    assert document.masked_paths == "docker-2"


def test_only_an_init_that_is_the_program_is_left_out() -> None:
    value = captured("docker-26.1", "options")
    assert not translated(value).document.folders
    value["process"]["args"] = ["/bin/app", "--", "true"]
    document = translated(value).document
    assert document.process.argv == ("/bin/app", "--", "true")
    assert [folder.target for folder in document.folders] == ["/sbin/docker-init"]


def test_closed_but_for_what_the_engine_asked() -> None:
    doors = translated(captured("docker-26.1")).document.process.host
    assert (doors.stdin, doors.resize, doors.output, doors.signals) == (False, False, True, SIGNALS)
    assert translated(captured("docker-26.1"), stdin=True).document.process.host.stdin
    terminal = translated(captured("docker-26.1", "tty")).document.process
    assert (terminal.terminal, terminal.host.stdin, terminal.host.resize) == (True, True, True)


def test_exec_is_closed_but_for_commands_that_are_named() -> None:
    closed = translated(captured("docker-26.1")).document
    assert not closed.host_exec
    assert not closed.exec
    named = Settings(exec=(Command(argv=("/bin/health", "-q")),))
    document = translated(captured("docker-26.1"), settings=named).document
    assert [entry.process.argv for entry in document.exec] == [("/bin/health", "-q")]
    assert not document.exec[0].process.host.stdin
    assert document.exec[0].process.seccomp == document.process.seccomp
    opened = translated(captured("docker-26.1"), settings=Settings(openness=Openness.OPEN)).document
    assert opened.host_exec
    assert any(line.startswith("commands:") for line in openings(opened))


@pytest.mark.parametrize("engine", ENGINES)
def test_folders_of_the_host(engine: str) -> None:
    value = captured(engine, "volumes")
    with pytest.raises(UserError, match=r"/data: refused \(from --volume or --mount\)") as caught:
        translated(value)
    assert "/srv/root/tmp" in str(caught.value)
    allowed = Settings(writable=("/srv/root", "named"))
    done = translated(value, settings=allowed)
    folders = {folder.target: (folder.write, folder.length) for folder in done.document.folders}
    assert folders == {
        "/config": (False, allowed.folder_bytes),
        "/one": (False, allowed.folder_bytes),
        "/data": (True, 0),
        "/named": (True, 0),
    }
    assert {folder.target: str(folder.source) for folder in done.folders}["/config"] == "/srv/root/etc"
    with pytest.raises(UserError, match=r'writable = \["named"\]'):
        translated(value, settings=Settings(writable=("/srv/root",)))
    # Beginning alike is not lying below.
    with pytest.raises(UserError, match=r"/srv/root/tmp"):
        translated(value, settings=Settings(writable=("/srv/ro", "named")))


BINDS = {
    "shared": ({"destination": "/x", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "shared"]}, "shared"),
    "in /dev": ({"destination": "/dev/x", "type": "bind", "source": "/srv", "options": ["bind", "ro"]}, "guest's own"),
    "in /proc": ({"destination": "/proc/x", "type": "tmpfs"}, "guest's own"),
    "overlay": ({"destination": "/x", "type": "overlay", "options": []}, "no file system 'overlay'"),
    "option": ({"destination": "/x", "type": "bind", "source": "/srv", "options": ["bind", "ro", "idmap"]}, "idmap"),
    "relative": ({"destination": "/x", "type": "bind", "source": "srv", "options": ["bind", "ro"]}, "absolute"),
    "hides": ({"destination": "/etc", "type": "bind", "source": "/srv", "options": ["bind", "ro"]}, "would hide"),
    "tmpfs option": ({"destination": "/x", "type": "tmpfs", "options": ["uid=7"]}, "uid=7"),
    "tmpfs size": ({"destination": "/x", "type": "tmpfs", "options": ["size=0"]}, "'0' is no size"),
    "tmpfs mode": ({"destination": "/x", "type": "tmpfs", "options": ["mode=4755"]}, "no mode"),
}  # fmt: skip


@pytest.mark.parametrize("case", BINDS)
def test_mounts_that_a_guest_cannot_have(case: str) -> None:
    entry, says = BINDS[case]
    value = captured("docker-26.1")
    value["mounts"].append({"destination": "/x", "type": "bind", "source": "/srv", "options": ["bind", "ro"]})
    translated(value)
    value["mounts"][-1] = entry
    with pytest.raises(UserError) as caught:
        translated(value)
    assert says in str(caught.value)


@pytest.mark.parametrize("target", ["/sys", "/sys/fs/cgroup"])
def test_a_writable_sys_is_refused(target: str) -> None:
    value = captured("podman-5.4")
    options = mount(value, target)["options"]
    options[options.index("ro")] = "rw"
    with pytest.raises(UserError, match=rf"{target}: refused"):
        translated(value)


def test_sysctls_of_a_network_are_none_without_one() -> None:
    value = captured("docker-26.1")
    assert not translated(value, network=False).document.sysctls
    assert len(translated(value, network=True).document.sysctls) == 2
    value["linux"]["sysctl"]["net.core.somaxconn"] = "9"
    with pytest.raises(UserError, match=r"net\.core\.somaxconn: refused \(from --sysctl\)"):
        translated(value, network=False)
    value["linux"]["sysctl"]["kernel.panic"] = "9"
    with pytest.raises(UserError, match=r"sysctls"):
        translated(value, network=True)


@pytest.mark.parametrize(
    ("cpu", "vcpus"),
    [
        ({}, 3),
        ({"quota": 150_000, "period": 100_000}, 2),
        ({"quota": 10_000, "period": 100_000}, 1),
        ({"quota": -1, "period": 100_000}, 3),
        ({"cpus": "0-3,7"}, 5),
        ({"cpus": "0-3,7", "quota": 200_000}, 2),
    ],
)
def test_vcpus(cpu: dict[str, Any], vcpus: int) -> None:
    value = captured("docker-26.1")
    value["linux"]["resources"]["cpu"] = cpu
    assert translated(value, settings=Settings(vcpus=3)).vcpus == vcpus


def test_memory() -> None:
    value = captured("docker-26.1")
    assert translated(value, settings=Settings(memory_mib=700)).memory_mib == 700
    value["linux"]["resources"]["memory"]["limit"] = 200 << 20
    assert translated(value).memory_mib == 200
    value["linux"]["resources"]["memory"]["limit"] = 64 << 20
    with pytest.raises(UserError, match=r"memory\.limit: is 64 MiB"):
        translated(value)
