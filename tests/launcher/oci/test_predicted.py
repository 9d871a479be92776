# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The document that is computed of an image and options is the one of what the engine wrote for the same `run`."""

import json
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import ENGINES, ROOT, captured, translated, variants
from tools.launcher.base.errors import UserError
from tools.launcher.bundle import image_config
from tools.launcher.bundle.image_config import Config
from tools.launcher.oci.predicted import ALL, RunOptions, Volume, container
from tools.launcher.oci.settings import Settings
from tools.launcher.oci.translate import Translated, translate
from tools.sev.workload.document import Rlimit

NUMBERED = {"docker-20.10": "docker-20.10", "docker-26.1": "docker", "podman-4.3": "podman-4.3", "podman-5.4": "podman"}
PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\nextra:x:2000:app\napp:x:1001:\n"
MORE_GROUPS = b"root:x:0:\nwheel:x:10:root,app\nextra:x:2000:app\napp:x:1001:\n"
BOX = {"Cmd": ["sh"]}
USER = {
    "User": "app", "Env": ["FOO=bar"], "WorkingDir": "/tmp", "Cmd": ["sh", "-c", "id"], "Volumes": {"/data": {}}
}  # fmt: skip
OWN_SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
    ],
}
TRUE = ("true",)


def limit(name: str, soft: int | None, hard: int | None) -> dict[str, Rlimit]:
    return {name: Rlimit(name=name, soft=soft, hard=hard)}


# What was typed for each variant in engines/: the image's config, and the options.
RUN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": (BOX, {"argv": TRUE}),
    "tty": (BOX, {"argv": TRUE, "terminal": True}),
    "imageuser": (USER, {}),
    "options": (USER, {
        "argv": TRUE, "hostname": "web.example", "environment": {"A": "b"}, "user": "1000:1001", "groups": ("2000",),
        "directory": "/tmp", "read_only": True, "cap_add": ("syslog",), "cap_drop": ("mknod",),
        "tmpfs": {"/scratch": ("size=16m", "exec", "mode=1770")}, "shm_size": 32 << 20,
        "rlimits": limit("nofile", 1024, 2048), "sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
        "no_new_privileges": True, "cpus": 2, "memory": 256 << 20,
    }),
    "unconfined": (BOX, {"argv": TRUE, "seccomp": "unconfined"}),
    "ownseccomp": (BOX, {"argv": TRUE, "seccomp": OWN_SECCOMP}),
    "sysadmin": (USER, {"argv": TRUE, "cap_add": ("sys_admin",), "user": "app"}),
    "capdrop": (BOX, {"argv": TRUE, "cap_drop": (ALL,)}),
    "systempaths": (BOX, {"argv": TRUE, "unmasked": True}),
    "unmask": (BOX, {"argv": TRUE, "unmasked": True}),
    "cpus": (BOX, {"argv": TRUE, "cpus": 2}),
    "limits": (BOX, {"argv": TRUE, "memory": 256 << 20, "cpus": 1}),
    "memory": (BOX, {"argv": TRUE, "memory": 300 << 20, "cpus": 1}),
    "ulimit": (BOX, {"argv": TRUE, "rlimits": {**limit("core", 0, 0), **limit("nproc", 100, 200)}}),
    "ulimits": (BOX, {"argv": TRUE, "rlimits": {**limit("core", None, None), **limit("nofile", 5, 5)}}),
    "volumes": (BOX, {"argv": TRUE, "volumes": (
        Volume(source="/srv/root/etc", target="/config", write=False),
        Volume(source="/srv/root/tmp", target="/data", write=True),
        Volume(source="named", target="/named", write=True),
        Volume(source="/srv/root/etc/passwd", target="/one", write=False),
    )}),
    "bridge": (BOX, {"argv": TRUE, "network": True}),
    "annotation": (BOX, {"argv": TRUE}),
    "envs": (BOX, {"argv": TRUE, "environment": {
        "PATH": "/x", "HOME": "/y", "TERM": "z", "HOSTNAME": "h", "container": "c"}}),
    "tmpfs2": (BOX, {"argv": TRUE, "tmpfs": {"/a": (), "/b": ("noexec", "size=1g")}}),
    "readonly": (BOX, {"argv": TRUE, "read_only": True}),
    "netraw": (BOX, {"argv": TRUE, "cap_add": ("net_admin", "sys_ptrace"), "cap_drop": ("chown", "sys_chroot")}),
    "audit": (BOX, {"argv": TRUE, "cap_add": ("audit_write",)}),
    "bpf": (BOX, {"argv": TRUE, "cap_add": ("bpf", "perfmon")}),
    "capusers": (BOX, {"argv": TRUE, "cap_add": ("net_admin",), "user": "app"}),
    "u-root": (BOX, {"argv": TRUE}),
    "u-app": (BOX, {"argv": TRUE, "user": "app"}),
    "u-1000": (BOX, {"argv": TRUE, "user": "1000"}),
    "u-1000-2000": (BOX, {"argv": TRUE, "user": "1000:2000"}),
    "u-5000": (BOX, {"argv": TRUE, "user": "5000"}),
    "u-app-extra": (BOX, {"argv": TRUE, "user": "app:extra"}),
    "u-add": (BOX, {"argv": TRUE, "user": "app", "groups": ("extra", "77")}),
    "u-rootadd": (BOX, {"argv": TRUE, "groups": ("77",)}),
    "u-0-0": (BOX, {"argv": TRUE, "user": "0:0"}),
}  # fmt: skip
# Of an image whose root is in further groups.
IN_GROUPS = {"envs", "tmpfs2", "readonly", "netraw", "audit", "bpf", "capusers", "unmask", "memory", "ulimits"}
ELSEWHERE = {
    "cgroupnsprivate", "domain", "ipcnone",  # no options of ours
    "capall", "tmpfs",  # refused: see below
    "privileged", "device", "cgrule", "pidhost", "ipchost", "utshost", "nethost", "netcontainer", "pidcontainer",
    "userns",  # refused by the reader, as test_config.py has it
}  # fmt: skip


def image(config: dict[str, Any]) -> Config:
    return image_config.read({"architecture": "amd64", "os": "linux", "config": config}, where="image")


def predicted(engine: str, config: dict[str, Any], *, group: bytes = GROUP, **options: Any) -> Translated:
    values = RunOptions(engine=NUMBERED[engine], **{"network": False, **options})
    made = container(image(config), values, passwd=PASSWD, group=group, where="image")
    return translate(made, root=ROOT, settings=Settings(writable=("/srv/root", "named")), network=values.network)


def of_engine(engine: str, variant: str) -> tuple[dict[str, Any], Translated]:
    """What it wrote, where HOME is what a runtime would have found in the image."""
    value = captured(engine, variant)
    env = value["process"]["env"]
    if not any(entry.startswith("HOME=") for entry in env):
        home = {0: "/root", 1000: "/home/app"}.get(value["process"]["user"]["uid"], "/")
        env.append(f"HOME={home}")
    # podman takes these from the host that it runs on.
    for entry in value["process"].get("rlimits", []):
        ours = {"RLIMIT_NOFILE": 1 << 20, "RLIMIT_NPROC": 1 << 22}.get(entry["type"])
        if ours is not None and entry["soft"] > 5000:
            entry["soft"] = entry["hard"] = ours
    # … and has mounted this one before.
    for entry in value["mounts"]:
        if entry["destination"] == "/dev/shm" and variant == "options":
            entry.update(type="tmpfs", options=["noexec", "mode=1777", "size=32m"])
    settings = Settings(writable=("/srv/root", "named"))
    return value, translated(value, settings=settings, network=variant == "bridge")


CASES = [(engine, variant) for engine in ENGINES for variant in variants(engine) if variant not in ELSEWHERE]


@pytest.mark.parametrize(("engine", "variant"), CASES)
def test_what_is_computed_is_what_the_engine_means(engine: str, variant: str) -> None:
    config, options = RUN[variant]
    group = MORE_GROUPS if variant.startswith("u-") or variant in IN_GROUPS else GROUP
    done = predicted(engine, config, group=group, **options)
    _, wanted = of_engine(engine, variant)
    assert json.loads(done.document.data) == json.loads(wanted.document.data)
    assert done.document.sha256 == wanted.document.sha256
    assert (done.vcpus, done.memory_mib) == (wanted.vcpus, wanted.memory_mib)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_option_has_another_document(engine: str) -> None:
    plain = predicted(engine, BOX, argv=TRUE).document.sha256
    assert plain == predicted(engine, BOX, argv=TRUE).document.sha256
    for variant, (config, options) in RUN.items():
        # Of these the guest has other CPUs or memory; docker's containers have the capability anyway.
        same = {"cpus", "limits", "memory", *({"audit"} if engine.startswith("docker") else ())}
        if config is BOX and options != {"argv": TRUE} and variant not in {*same, "u-0-0"}:
            assert predicted(engine, config, **options).document.sha256 != plain, variant


def test_what_cannot_be_computed_is_said() -> None:
    with pytest.raises(UserError, match=r"--cap-add all"):
        predicted("docker-26.1", BOX, cap_add=(ALL,))
    with pytest.raises(UserError, match=r"both have chown"):
        predicted("docker-26.1", BOX, cap_add=("chown",), cap_drop=("chown",))
    with pytest.raises(UserError, match=r"names no command"):
        predicted("docker-26.1", {})
    with pytest.raises(UserError, match=r"option 'ro' of a tmpfs"):
        predicted("docker-26.1", BOX, tmpfs={"/c": ("ro",)})
    with pytest.raises(UserError, match=r"group 'nobody' is not in"):
        predicted("docker-26.1", BOX, groups=("nobody",))
