# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a container to its workload document, and to what the host supplies beside it.

container ─┬─ what an engine was asked for ────────────── document, which the launch digest binds
           └─ what it invents: host name, /etc/hosts … ── open in the document, given at the start
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.oci import mounts
from tools.launcher.oci.container import Container, ContainerProcess
from tools.launcher.oci.home import home_of
from tools.launcher.oci.mounts import Folder
from tools.launcher.oci.settings import Command, Openness, Settings
from tools.sev.errors import FormatError
from tools.sev.limits import MEMORY_MAX_MIB, MEMORY_MIN_MIB
from tools.sev.workload import reader
from tools.sev.workload.calls import Calls
from tools.sev.workload.document import (
    Capabilities,
    Document,
    Doors,
    Exec,
    HostFolder,
    Process,
    Rlimit,
    Sysctl,
    Variable,
    Verity,
)
from tools.sev.workload.engines import ENGINES

_INVENTED = re.compile(r"[0-9a-f]{12}")
"""Engines call a container by the beginning of its id, unless told otherwise."""
_HOSTNAME, _HOSTNAME_BYTES = "HOSTNAME", 64
_HOME, _TERM = "HOME", "TERM=xterm"
_UNNAMED = "sev-guest"
_UMASK = 0o022
_ENDS_OR_STOPS = (9, 19)
"""SIGKILL and SIGSTOP are the whole guest's: its QEMU is killed, or stopped."""
SIGNALS = tuple(number for number in range(1, 65) if number not in _ENDS_OR_STOPS)
_NETWORK_DEFAULTS = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range")
"""Engines write these whether there is a network or not."""
_INIT_OPTIONS = ("--", "-s")

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A document and what goes with it: `vcpus` and `memory_mib` of the guest, and what its host supplies.

    `supplied`: what the document's files come from, by their number in it, None for an empty one; engines may write
    them until their hooks have run. `hostname` is for a document that lets the host choose it. `notes` are for people.
    """

    document: Document
    hostname: str
    environment: tuple[bytes, ...]
    supplied: dict[int, Path | None]
    folders: tuple[Folder, ...]
    vcpus: int
    memory_mib: int
    network: bool
    notes: tuple[str, ...] = ()

    def files(self) -> dict[int, bytes]:
        """The supplied files' contents as they are now; UserError for one that cannot be read or is too large."""
        return {
            number: b"" if path is None else _supplied(path, self.document.files[number].length)
            for number, path in self.supplied.items()
        }


def translate(
    container: Container, *, root: Verity, settings: Settings, network: bool, stdin: bool = False
) -> Translated:
    """The document that a guest for this container is bound to; UserError for what no guest can have.

    `network`: whether the container's namespace has an interface. `stdin`: whether the engine has given one; with a
    terminal it always has.
    """
    memory_mib = _memory(container, settings)
    mounted = mounts.sort(
        container, writable=settings.writable, folder_bytes=settings.folder_bytes, memory=memory_mib << 20
    )
    invented = _INVENTED.fullmatch(container.hostname) is not None
    doors = _doors(container, invented=invented, stdin=stdin)
    process = _process(container, container.process, doors=doors, init=mounted.init)
    closed = settings.openness is Openness.CLOSED
    document = Document(
        root=root,
        process=process,
        exec=tuple(_exec(container, doors, command, n) for n, command in enumerate(settings.exec)) if closed else (),
        host_exec=not closed,
        mounts=mounted.memory,
        files=mounted.files,
        folders=tuple(_folder(folder) for folder in mounted.folders),
        hostname=_UNNAMED if invented or not container.hostname else container.hostname,
        host_names_it=invented,
        sysctls=_sysctls(container, network=network),
        network="ethernet" if network else "none",
        masked_paths=_named("masked_paths", container.masked_paths),
        read_only_paths=_named("read_only_paths", container.read_only_paths),
        read_only_root=container.read_only_root,
        reports=settings.reports,
        host_reports=settings.host_reports,
        end_on_refusal=settings.end_on_refusal,
    )
    try:
        document = reader.parse(document.data, where="config.json as a workload document")
    except FormatError as error:
        raise UserError.of(error) from None
    return Translated(
        document=document,
        hostname=container.hostname or _UNNAMED,
        environment=(f"{_HOSTNAME}={container.hostname}".encode(),) if doors.environment else (),
        supplied=dict(enumerate(mounted.supplied)),
        folders=mounted.folders,
        vcpus=container.resources.cpus or settings.vcpus,
        memory_mib=memory_mib,
        network=network,
        notes=mounted.notes,
    )


def environment(container: Container, process: ContainerProcess) -> dict[str, str]:
    """The variables of a process in the container, by name, with HOME as runc adds it."""
    found = dict(entry.split("=", 1) for entry in process.environment)
    if not found.get(_HOME):
        found[_HOME] = container.home if process.uid == container.process.uid else home_of(container.root, process.uid)
    return dict(sorted(found.items()))


def _doors(container: Container, *, invented: bool, stdin: bool) -> Doors:
    """What the engine asked for, and the variable that it made of the name that it invented."""
    process = container.process
    name = f"{_HOSTNAME}={container.hostname}"
    variable = Variable(name=_HOSTNAME, allow="word", length=_HOSTNAME_BYTES)
    return Doors(
        environment=(variable,) if invented and name in process.environment else (),
        resize=process.terminal,
        signals=SIGNALS,
        stdin=stdin or process.terminal,
    )


def _process(container: Container, process: ContainerProcess, *, doors: Doors, init: str | None) -> Process:
    given = {variable.name for variable in doors.environment}
    return Process(
        argv=_without_init(process.argv, init),
        environment=tuple(f"{n}={v}" for n, v in environment(container, process).items() if n not in given),
        cwd=process.cwd,
        uid=process.uid,
        gid=process.gid,
        groups=process.groups,
        capabilities=_capabilities(process.capabilities, uid=process.uid),
        no_new_privileges=process.no_new_privileges,
        rlimits=_rlimits(process.rlimits),
        seccomp=_seccomp(container.seccomp),
        umask=_UMASK if process.umask is None else process.umask,
        terminal=process.terminal,
        host=doors,
    )


def _without_init(argv: tuple[str, ...], init: str | None) -> tuple[str, ...]:
    """The command behind the engine's init: `docker-init -- COMMAND`."""
    if init is None or argv[0] != init:
        return argv
    rest = argv[1:]
    while rest and rest[0] in _INIT_OPTIONS:
        rest = rest[1:]
    if not rest:
        raise UserError("has an init and no command behind it", where="config.json: process.args")
    return rest


def _exec(container: Container, doors: Doors, command: Command, number: int) -> Exec:
    """A command that the host may start: as the workload, but for what it is."""
    process = _process(container, container.process, doors=doors, init=None)
    names = {entry.partition("=")[0] for entry in process.environment}
    # Engines add it to an exec with a terminal, too.
    terminal = (_TERM,) if command.terminal and "TERM" not in names else ()
    opened = Doors(
        environment=doors.environment, resize=command.terminal, signals=SIGNALS, stdin=command.stdin or command.terminal
    )
    one = dataclasses.replace(
        process,
        argv=command.argv,
        environment=tuple(sorted((*process.environment, *terminal))),
        terminal=command.terminal,
        host=opened,
    )
    return Exec(name=f"exec-{number + 1}", count=command.count, process=one)


def _capabilities(sets: Capabilities, *, uid: int) -> Capabilities | str:
    for name, engine in ENGINES.items():
        if sets == Capabilities.of(engine.capabilities, uid=uid):
            return name
    return sets


def _rlimits(limits: tuple[Rlimit, ...]) -> tuple[Rlimit, ...] | str:
    found = tuple((limit.name, limit.soft, limit.hard) for limit in limits)
    return next((name for name, engine in ENGINES.items() if found and found == engine.rlimits), limits)


def _seccomp(calls: Calls | None) -> bool | Calls | str:
    if calls is None:
        return False
    return next((name for name, engine in ENGINES.items() if calls == engine.seccomp), calls)


def _named(key: str, paths: tuple[str, ...]) -> tuple[str, ...] | str:
    """The name of the first engine whose default it is, in place of the paths."""
    return next((name for name, engine in ENGINES.items() if paths and paths == getattr(engine, key)), paths)


def _sysctls(container: Container, *, network: bool) -> tuple[Sysctl, ...]:
    wanted = dict(container.sysctls)
    if container.domainname:
        wanted.setdefault("kernel.domainname", container.domainname)
    if not network:
        for name in _NETWORK_DEFAULTS:
            wanted.pop(name, None)
    for name in sorted(wanted):
        if name.startswith("net.") and not network:
            raise UserError(
                "refused (from --sysctl): without a network the guest's kernel has none of this",
                where=f"config.json: linux.sysctl.{name[:80]}",
            )
    return tuple(Sysctl(name=name, value=wanted[name]) for name in sorted(wanted))


def _folder(folder: Folder) -> HostFolder:
    return HostFolder(target=folder.target, length=folder.length, write=folder.write)


def _memory(container: Container, settings: Settings) -> int:
    limit = container.resources.memory
    if limit is None:
        return settings.memory_mib
    mib = limit >> 20
    if mib < MEMORY_MIN_MIB:
        raise UserError(
            f"is {mib} MiB (from --memory), and a guest needs at least {MEMORY_MIN_MIB} MiB",
            where="config.json: linux.resources.memory.limit",
        )
    return min(mib, MEMORY_MAX_MIB)


def _supplied(path: Path, limit: int) -> bytes:
    return files.read(path, limit, most=f"the {limit} bytes that the host may supply", regular=True)
