# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a bundle's config.json to a container: bounded, typed, and nothing in it dropped in silence."""

import re
from pathlib import Path

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.oci import fields, processes
from tools.launcher.oci.container import Container, ContainerProcess, Hook, Hooks, Mount, Resources
from tools.launcher.oci.filters import seccomp
from tools.launcher.oci.home import home_of
from tools.launcher.oci.namespaces import network_namespace, refuse_host
from tools.launcher.oci.values import Table, decode
from tools.sev.limits import VCPUS_MAX

NAME = "config.json"
SIZE_MAX = 4 << 20
_VERSION = re.compile(r"1\.[0-9]{1,4}\.[0-9]{1,4}(?:[-+][0-9A-Za-z.+-]{1,40})?")
_I64 = (1 << 63) - 1
_CPUSET = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?){0,1023}")
_HOUR = 3600
_DEVICES = frozenset(
    {("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9)}  # null, zero, full, random, urandom
    | {("c", 5, 0), ("c", 5, 1), ("c", 5, 2), ("c", 136, None)}  # tty, console, ptmx, pts
)
"""Documentation/admin-guide/devices.txt: what every container has, and the guest has of its own."""


def read(folder: Path) -> Container:
    """The container that an engine has put into the folder; UserError names the file and the key."""
    path = folder / NAME
    return parse(contents(path), where=str(path), folder=folder)


def contents(path: Path) -> bytes:
    """The bytes of a file that an engine wrote, if it is a regular one and not too large."""
    return files.read(path, SIZE_MAX, regular=True)


def parse(data: bytes, *, where: str = NAME, folder: Path = Path()) -> Container:
    """The same, from the file's bytes; `folder` is what a root's relative path starts from."""
    value = decode(data, where=where)
    top = Table(value, where=where)
    version = top.text("ociVersion")
    if _VERSION.fullmatch(version) is None:
        raise top.fault("ociVersion", f"is {version[:40]!r}; known is version 1 of the specification")
    linux = top.table("linux")
    _check_devices(linux.table("resources"))
    fields.check(value, where=where)
    refuse_host(linux, top)
    root = top.table("root")
    path = root.text("path")
    if not path:
        raise root.fault("path", "is missing")
    runs = processes.read(top.table("process"))
    sysctls = linux.strings("sysctl")
    return Container(
        version=version,
        process=runs,
        root=folder / path,
        read_only_root=root.flag("readonly"),
        home=home_of(folder / path, runs.uid),
        hostname=top.text("hostname"),
        domainname=top.text("domainname"),
        mounts=tuple(_mount(one) for one in top.tables("mounts")),
        hooks=_hooks(top.table("hooks")),
        annotations=top.strings("annotations"),
        sysctls=sysctls,
        resources=_resources(linux.table("resources")),
        cgroups_path=linux.text("cgroupsPath"),
        network_namespace=network_namespace(linux),
        seccomp=seccomp.read(linux.table("seccomp")) if linux.has("seccomp") else None,
        masked_paths=_paths(linux, "maskedPaths"),
        read_only_paths=_paths(linux, "readonlyPaths"),
    )


def process(data: bytes, *, where: str = "--process") -> ContainerProcess:
    """What an engine hands to exec: the object `process` alone."""
    value = decode(data, where=where)
    fields.check({"process": value}, where=where)
    return processes.read(Table(value, where=f"{where}: process"))


def _check_devices(resources: Table) -> None:
    """Rules of the device cgroup: what is allowed is a device that the guest has of its own, or refused."""
    for rule in resources.tables("devices"):
        if not rule.flag("allow"):
            continue
        kind, major, minor = (
            rule.text("type"), rule.number("major", low=-1, high=_I64), rule.number("minor", low=-1, high=_I64)
        )  # fmt: skip
        if kind in ("", "a") and major in (None, -1):
            raise UserError(
                "refused (from --privileged): a guest has none of the host's devices",
                where=rule.where,
            )
        if (kind, major, minor) not in _DEVICES and (kind, major, None if minor == -1 else minor) not in _DEVICES:
            shown = f"{kind} {major}:{minor}"
            raise UserError(
                f"refused (from --device or --device-cgroup-rule): the guest has no device {shown} of the host's",
                where=rule.where,
            )


def _mount(table: Table) -> Mount:
    target = table.text("destination")
    if not target.startswith("/") or ".." in target.split("/"):
        raise table.fault("destination", f"is {target[:100]!r}, which is no absolute path without '..'")
    return Mount(
        target=processes.plain(target),
        kind=table.text("type"),
        source=table.text("source"),
        options=table.words("options"),
        where=table.where,
    )


def _hooks(table: Table) -> Hooks:
    def of(key: str) -> tuple[Hook, ...]:
        return tuple(_hook(one) for one in table.tables(key))

    return Hooks(
        prestart=of("prestart"),
        create_runtime=of("createRuntime"),
        create_container=of("createContainer"),
        poststart=of("poststart"),
        poststop=of("poststop"),
    )


def _hook(table: Table) -> Hook:
    path = table.text("path")
    if not path.startswith("/"):
        raise table.fault("path", f"is {path[:100]!r}, which is no absolute path")
    return Hook(
        path=path,
        args=table.words("args"),
        env=table.words("env"),
        timeout=table.number("timeout", low=1, high=24 * _HOUR),
    )


def _resources(table: Table) -> Resources:
    memory, cpu = table.table("memory"), table.table("cpu")
    limit = memory.number("limit", low=-1, high=_I64)
    quota = cpu.number("quota", low=-1, high=_I64)
    period = cpu.number("period", high=_I64)
    cpuset = cpu.text("cpus")
    if cpuset and _CPUSET.fullmatch(cpuset) is None:
        raise cpu.fault("cpus", f"is {cpuset[:60]!r}, which is no list of CPUs")
    counts = []
    if quota is not None and quota > 0:
        counts.append(-(-quota // (period or 100_000)))
    if cpuset:
        counts.append(len(_listed(cpu, cpuset)))
    return Resources(
        memory=limit if limit is not None and limit > 0 else None,
        quota=quota if quota is not None and quota > 0 else None,
        period=period or None,
        cpuset=cpuset,
        cpus=max(1, min(*counts, VCPUS_MAX)) if counts else None,
    )


def _listed(cpu: Table, cpuset: str) -> set[int]:
    found: set[int] = set()
    for part in cpuset.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise cpu.fault("cpus", f"has {part!r}, which ends before it begins")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _paths(linux: Table, key: str) -> tuple[str, ...]:
    paths = linux.words(key)
    for path in paths:
        if not path.startswith("/") or ".." in path.split("/") or processes.plain(path) == "/":
            raise linux.fault(key, f"has {path[:100]!r}, which is no absolute path without '..'")
    return tuple(sorted({processes.plain(path) for path in paths}))
