# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The control groups of a container's monitor and QEMU.

    v1        every hierarchy: ROOT/CONTROLLER/PATH, limits in memory, cpu and cpuset
    v2        ROOT/PATH, with these controllers handed down to it
    systemd   a transient scope, made by systemd, then as above

A guest's memory is what the engine asked for; QEMU and the monitor need more, and get it on top, so that a guest that
uses all of its RAM is not killed by its own group (docs/runtime.md has the measurement).
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.oci.container import Resources
from tools.runtime.life.folder import ContainerError

_MOUNTS = Path("/proc/self/mountinfo")
_PERIOD = 100_000  # microseconds, the kernel's own (Documentation/scheduler/sched-bwc.rst)
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Where a container's processes are counted. `path` as in config.json's linux.cgroupsPath, "" for where we are.

    `memory` in bytes is what all of them may have together, None for no limit.
    """

    path: str
    systemd: bool
    memory: int | None
    resources: Resources

    def join(self, pid: int, note: Callable[[list[str]], None]) -> None:
        """Make the groups with their limits and put the process in; `note` gets their folders before they are made."""
        if not self.path:
            return
        try:
            if self.systemd:
                _scope(self.path, pid)
                folders = list(_of_process(pid))
            else:
                folders = [_below(root, self.path) for root in _roots()]
            note([str(folder) for folder in folders])
            for folder in folders:
                self._make(folder)
                if not self.systemd:
                    (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            where = f"control group {error.filename or self.path}"
            raise ContainerError(error.strerror or str(error), where=where) from None

    def _make(self, folder: Path) -> None:
        for one in reversed([folder, *folder.parents]):
            if not one.is_dir():
                one.mkdir()
                _inherit(one)
        for name, value in self._limits(unified=(folder / "cgroup.controllers").exists()):
            if (folder / name).exists():
                (folder / name).write_text(value)

    def _limits(self, *, unified: bool) -> Iterator[tuple[str, str]]:
        resources = self.resources
        if self.memory is not None:
            yield "memory.max" if unified else "memory.limit_in_bytes", str(self.memory)
        if resources.quota is not None:
            period = resources.period or _PERIOD
            if unified:
                yield "cpu.max", f"{resources.quota} {period}"
            else:
                yield "cpu.cfs_period_us", str(period)
                yield "cpu.cfs_quota_us", str(resources.quota)
        if resources.cpuset:
            yield "cpuset.cpus", resources.cpuset


def _roots() -> list[Path]:
    """Where hierarchies are mounted: those of v1 where there are any with a controller, else the unified one."""
    first, unified = [], []
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        place, kind = Path(before.split()[4]), after.split()[0]
        if kind == "cgroup":
            first.append(place)
        elif kind == "cgroup2":
            unified.append(place)
    return sorted(set(first)) or unified[:1]


def _below(root: Path, path: str) -> Path:
    """The group's folder. What is not absolute lies below the caller's own group, as runc has it."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ContainerError("leads out of its hierarchy", where=f"linux.cgroupsPath {path[:200]}")
    if path.startswith("/"):
        return root.joinpath(*parts)
    own = next((place for place in _of_process(os.getpid()) if place.is_relative_to(root)), root)
    return own.joinpath(*parts)


def _of_process(pid: int) -> Iterator[Path]:
    """The folders of the groups that a process is in."""
    roots = {root.name: root for root in _roots()}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        root = next(iter(roots.values())) if number == "0" and not controllers else roots.get(name)
        if root is not None:
            yield root / path.lstrip("/")


def _inherit(folder: Path) -> None:
    """What a new group lacks before a process can be in it, and what its parent must hand down to it."""
    handed = folder.parent / "cgroup.subtree_control"
    for name in ("cpuset.cpus", "cpuset.mems"):
        own, above = folder / name, folder.parent / name
        # Of v1: in the unified hierarchy an empty one is as the parent's.
        if own.exists() and above.exists() and not handed.exists() and not own.read_text().strip():
            own.write_text(above.read_text())
    if handed.exists():
        for controller in _CONTROLLERS:
            with suppress(OSError):  # one that this host has not, or that is handed down already
                handed.write_text(f"+{controller}")


def _scope(path: str, pid: int) -> None:
    """Have systemd make a transient scope with the process in it; `path` is SLICE:PREFIX:NAME."""
    parts = path.split(":")
    if len(parts) != 3:
        raise ContainerError(
            "is not SLICE:PREFIX:NAME, as --systemd-cgroup needs", where=f"linux.cgroupsPath {path[:200]}"
        )
    slice_, prefix, name = parts
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    words = ["busctl", "--", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    words += ["org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", "4"]
    words += ["Description", "s", f"sev-runtime container {name}", "Slice", "s", slice_ or "system.slice"]
    words += ["Delegate", "b", "true", "PIDs", "au", "1", str(pid), "0"]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContainerError(f"systemd cannot be asked for a scope: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise ContainerError(f"systemd makes no scope {unit}: {said}")
