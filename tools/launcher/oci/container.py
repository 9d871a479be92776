# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a config.json says, as plain values: as the engine wrote them, checked, and nothing of it translated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.sev.workload.calls import Calls
from tools.sev.workload.document import Capabilities, Rlimit


@dataclass(frozen=True, kw_only=True)
class ContainerProcess:
    """A process. `environment` has no name twice; `capabilities` are what exec leaves of those that were asked for.

    `size`: rows and columns of its terminal, None: nobody says. `umask` None: the runtime's.
    """

    argv: tuple[str, ...]
    environment: tuple[str, ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int | None = None
    terminal: bool = False
    size: tuple[int, int] | None = None
    capabilities: Capabilities
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False


@dataclass(frozen=True, kw_only=True)
class Mount:
    """An entry of `mounts`; `where` names it in errors."""

    target: str
    kind: str
    source: str = ""
    options: tuple[str, ...] = ()
    where: str = "mounts"


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A program of the host's; `timeout` in seconds, None: as long as it takes."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """In the order in which they run; prestart's come before create_runtime's."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resources:
    """None: the engine says nothing. `memory` in bytes; `quota` and `period` in microseconds.

    `cpuset`: as cgroups have it. `cpus`: how many CPUs all that comes to, at least 1.
    """

    memory: int | None = None
    quota: int | None = None
    period: int | None = None
    cpuset: str = ""
    cpus: int | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container. `root` is the folder with its root file system, on the host; `home` what HOME is when nobody says.

    `network_namespace`: a path, or "" for a new one. `seccomp` None: no filter.
    """

    version: str
    process: ContainerProcess
    root: Path
    read_only_root: bool = False
    home: str = "/"
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources()
    cgroups_path: str = ""
    network_namespace: str = ""
    seccomp: Calls | None = None
    masked_paths: tuple[str, ...] = ()
    read_only_paths: tuple[str, ...] = ()
