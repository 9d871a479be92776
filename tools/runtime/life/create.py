# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`create`: from a bundle to a container whose guest waits for its start."""

import json
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.launcher.oci import config
from tools.launcher.oci.container import Container
from tools.runtime.base.log import EngineLog
from tools.runtime.config.annotations import applied
from tools.runtime.config.settings import Settings
from tools.runtime.image.disk import disk_of
from tools.runtime.life import hooks, monitor, remove
from tools.runtime.life.boot import Ordered, booted
from tools.runtime.life.cgroups import Group
from tools.runtime.life.folder import CONFIG, HOOKS, STATE, ContainerError, Folder

VERSION = "1.2.0"
"""Of the OCI runtime specification."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `create` was called with; paths are absolute. `console`: the socket that a terminal's master goes to.

    `systemd`: control groups are made by it.
    """

    folder: Folder
    bundle: Path
    settings: Settings
    engine_log: EngineLog
    pid_file: Path | None
    console: str | None
    systemd: bool


def create(asked: Asked) -> None:
    """All of it, or nothing is left."""
    container = config.read(asked.bundle)
    terminal = container.process.terminal
    if terminal is not (asked.console is not None):
        what = "process.terminal needs --console-socket" if terminal else "--console-socket needs a process.terminal"
        raise ContainerError(what)
    folder, note = asked.folder, asked.engine_log.note
    settings = applied(asked.settings, container.annotations)
    _make(folder)
    try:
        _fill(folder, container, bundle=asked.bundle)
        made = (container.process.cwd, *(mount.target for mount in container.mounts))
        with disk_of(container.root, cache=settings.cache, mkfs=settings.mkfs, note=note, made=made) as disk:
            ordered = Ordered(
                container=container,
                settings=settings,
                disk=disk,
                stdin=has_stdin(),
                folder=folder,
                engine_log=asked.engine_log,
            )
            _bring(ordered, asked)
    except BaseException:
        remove.remove(folder, asked.engine_log)
        raise


def _bring(ordered: Ordered, asked: Asked) -> None:
    folder, given = ordered.folder, ordered.container.hooks

    def run(kind: str) -> None:
        hooks.run(kind, _HOOKS[kind](given), folder.state(), bundle=str(asked.bundle))

    plan = monitor.Plan(
        folder=folder,
        engine_log=asked.engine_log,
        join_cgroups=_group(ordered.container, asked).join,
        network=ordered.container.network_namespace,
        inside=partial(run, "createContainer"),
        console_socket=asked.console,
        boot=partial(booted, ordered),
        keep=(ordered.disk.descriptor,),
    )
    born = monitor.begin(plan)
    try:
        born.wait()
        folder.set_status("creating", pid=born.pid)
        run("prestart")
        run("createRuntime")
        born.go()
        born.wait()
        if asked.pid_file is not None:
            write_pid(asked.pid_file, born.pid)
    except BaseException:
        born.end()
        raise


_HOOKS = {
    "prestart": lambda hooks: hooks.prestart,
    "createRuntime": lambda hooks: hooks.create_runtime,
    "createContainer": lambda hooks: hooks.create_container,
}


def _group(container: Container, asked: Asked) -> Group:
    """What the engine asked for, and on top of the guest's memory what QEMU and the monitor need."""
    limit = container.resources.memory
    return Group(
        path=container.cgroups_path,
        systemd=asked.systemd,
        memory=None if limit is None else limit + (asked.settings.overhead_mib << 20),
        resources=container.resources,
    )


def has_stdin() -> bool:
    """Whether the engine has connected standard input to something."""
    try:
        status = os.fstat(0)
    except OSError:
        return False
    return not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.stat(os.devnull).st_rdev


def _make(folder: Folder) -> None:
    root = os.path.dirname(folder.path)
    try:
        os.makedirs(root, mode=0o711, exist_ok=True)
        os.mkdir(folder.path, 0o711)
    except FileExistsError:
        raise ContainerError("a container of that id exists", where=folder.name) from None
    except PermissionError:
        if _is_rootless():
            raise ContainerError(
                "rootless engines are refused: control groups, taps and QEMU's own user need the host's root",
                hint="run the engine as root",
            ) from None
        raise


def _is_rootless() -> bool:
    """Whether this process's root, if it is one, is an ordinary user of the host."""
    return Path("/proc/self/uid_map").read_text().split()[:2] != ["0", "0"] or os.geteuid() != 0


def _fill(folder: Folder, container: Container, *, bundle: Path) -> None:
    # The order counts: folder.py looks for the status where it is here.
    state = {
        "ociVersion": VERSION,
        "id": folder.name,
        "status": "creating",
        "pid": 0,
        "bundle": str(bundle),
        "annotations": dict(container.annotations),
    }
    folder.write(STATE, json.dumps(state).encode())
    # What the engine changes in the bundle after this has no effect (runtime.md, lifecycle, 2).
    folder.write(CONFIG, config.contents(bundle / config.NAME))
    later = hooks.packed(container.hooks)
    if later:
        folder.write(HOOKS, later)


def write_pid(path: Path, pid: int) -> None:
    """Write a pid-file, all of it or nothing."""
    # Without a newline: containerd reads all of it as the number.
    partial_file = path.with_name(f".{path.name}")
    # Somebody else may be able to write there: nothing that lies there already is opened, nor a link followed.
    partial_file.unlink(missing_ok=True)
    with partial_file.open("x") as stream:
        stream.write(str(pid))
    partial_file.replace(path)
