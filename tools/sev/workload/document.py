# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a workload document says, as plain values; docs/workload.md explains each."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tools.sev.workload import canonical
from tools.sev.workload.calls import Calls
from tools.sev.workload.engines import ENGINES

VERSION = 1
UNLIMITED = "unlimited"
LAYERS_MAX = 127
"""What container engines allow, too."""
FILE_MAX = 1_000_000
"""Bytes of a file that a host may supply."""
FOLDERS_MAX = 16
"""Each is a device of the guest, and a bus has few places."""
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
"""By number: include/uapi/linux/capability.h."""
RLIMITS = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
    "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip
"""By number: include/uapi/asm-generic/resource.h."""
GRAMMARS = {
    "digits": "decimal digits",
    "hex": "lower-case hexadecimal digits",
    "word": "letters, digits and . _ -",
    "path": "an absolute path of letters, digits and . _ - /, without a component ..",
    "line": "any text without control characters",
}
"""What the value of a variable may be that the host sets: the name in the document, and in words."""
NETWORKS = ("none", "ethernet")
"""What the guest is connected to; addresses and routes of an ethernet come from its host."""
REPORTS = {
    "none": "the workload gets no attestation reports",
    "socket": "any process asks the agent, at a socket",
    "raw": "programs that are root reach the processor's own interface, and choose all of REPORT_DATA",
}
"""How the workload gets attestation reports: the name in the document, and in words."""
DEFAULT_CAPABILITIES = (
    "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "net_raw", "setfcap",
    "setgid", "setpcap", "setuid", "sys_chroot",
)  # fmt: skip
"""Docker's default set without mknod."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The five sets of a process, sorted; see `of` for the usual ones."""

    bounding: tuple[str, ...]
    permitted: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str], *, uid: int) -> "Capabilities":
        """What exec leaves when these bound a process: root has them, another uid has none of its own."""
        bounding = tuple(sorted(set(names)))
        permitted = bounding if uid == 0 else ()
        return cls(bounding=bounding, permitted=permitted, effective=permitted)

    def fault(self, *, uid: int) -> str | None:
        """What is wrong with them, if something is: the sets must be what exec leaves of them."""
        if not set(self.ambient) <= set(self.inheritable) <= set(self.bounding):
            return "ambient must be in inheritable, and inheritable in bounding"
        if self.permitted != self.effective:
            return "permitted and effective must be the same"
        if uid == 0 and self.permitted != self.bounding:
            return "for uid 0 permitted must be as bounding"
        if uid != 0 and self.permitted != self.ambient:
            return "for this uid permitted must be as ambient"
        return None

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {
            "ambient": list(self.ambient),
            "bounding": list(self.bounding),
            "effective": list(self.effective),
            "inheritable": list(self.inheritable),
            "permitted": list(self.permitted),
        }


@dataclass(frozen=True, kw_only=True)
class Tar:
    """A root that is unpacked into memory; `length` in bytes."""

    length: int
    sha256: str

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {"form": "tar", "bytes": self.length, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class Verity:
    """EROFS images one behind the other, and a dm-verity tree behind all of them; `salt` in hexadecimal, "" for none.

    `layers`: blocks of 4096 bytes of each, the lowest first; in the guest each lies over those before it.
    """

    root_hash: str
    salt: str
    layers: tuple[int, ...]

    @property
    def blocks(self) -> int:
        """Of all layers; the tree lies behind them."""
        return sum(self.layers)

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {"form": "erofs-verity", "layers": list(self.layers), "root_hash": self.root_hash, "salt": self.salt}


@dataclass(frozen=True, kw_only=True)
class Variable:
    """An environment variable that the host may set: `allow` is one of GRAMMARS, `length` the most bytes."""

    name: str
    allow: str
    length: int


@dataclass(frozen=True, kw_only=True)
class Doors:
    """What the host may do to one process. All closed but the output, without which nothing is heard of it."""

    environment: tuple[Variable, ...] = ()
    output: bool = True
    resize: bool = False
    signals: tuple[int, ...] = ()
    stdin: bool = False

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {
            "environment": [{"allow": v.allow, "bytes": v.length, "name": v.name} for v in self.environment],
            "output": self.output,
            "resize": self.resize,
            "signals": list(self.signals),
            "stdin": self.stdin,
        }


@dataclass(frozen=True, kw_only=True)
class Rlimit:
    """A resource limit; None is no limit."""

    name: str
    soft: int | None
    hard: int | None

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        soft, hard = (UNLIMITED if limit is None else limit for limit in (self.soft, self.hard))
        return {"hard": hard, "name": self.name, "soft": soft}


def _named(found: Any, spelt: Callable[[Any], Any]) -> Any:
    """An engine's name as it is, anything else spelt out."""
    return found if isinstance(found, str) else spelt(found)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process and what the host may do to it; `seccomp`: under the agent's filter of system calls, or one of its own.

    `capabilities` None: the default ones as its uid has them. A string in place of `capabilities`, `rlimits` or
    `seccomp` names an engine's defaults (engines.py).
    """

    argv: tuple[str, ...]
    environment: tuple[str, ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: Capabilities | str | None = None
    no_new_privileges: bool = True
    rlimits: tuple[Rlimit, ...] | str = ()
    seccomp: bool | Calls | str = True
    terminal: bool = False
    umask: int = 0o022
    host: Doors = Doors()

    @property
    def sets(self) -> Capabilities:
        """Its capabilities, spelt out."""
        if isinstance(self.capabilities, str):
            return Capabilities.of(ENGINES[self.capabilities].capabilities, uid=self.uid)
        return self.capabilities or Capabilities.of(DEFAULT_CAPABILITIES, uid=self.uid)

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {
            "argv": list(self.argv),
            "capabilities": self.capabilities if isinstance(self.capabilities, str) else self.sets.value(),
            "cwd": self.cwd,
            "environment": list(self.environment),
            "gid": self.gid,
            "groups": list(self.groups),
            "host": self.host.value(),
            "no_new_privileges": self.no_new_privileges,
            "rlimits": _named(self.rlimits, lambda limits: [limit.value() for limit in limits]),
            "seccomp": self._seccomp(),
            "terminal": self.terminal,
            "uid": self.uid,
            "umask": f"{self.umask:04o}",
        }

    def _seccomp(self) -> str | dict[str, Any]:
        if isinstance(self.seccomp, str):
            return self.seccomp
        if isinstance(self.seccomp, Calls):
            return self.seccomp.value()
        return "default" if self.seccomp else "none"


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A further process that the host may start, `count` times in a guest's life."""

    name: str
    count: int
    process: Process


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A tmpfs in the container; `length` in bytes, `mode` of its folder in octal."""

    target: str
    length: int
    mode: str = "0755"
    executable: bool = False

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {
            "bytes": self.length,
            "executable": self.executable,
            "kind": "tmpfs",
            "mode": self.mode,
            "target": self.target,
        }


@dataclass(frozen=True, kw_only=True)
class SuppliedFile:
    """A file that the host may supply, mounted read-only at `target`; `length` is the most bytes."""

    target: str
    length: int


@dataclass(frozen=True, kw_only=True)
class HostFolder:
    """A folder or file of the host at `target`: read-only, in `length` bytes of memory; or shared, with `write`.

    `length` is 0 for a shared one, which stays on the host.
    """

    target: str
    length: int = 0
    write: bool = False

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {"bytes": self.length, "target": self.target, "write": self.write}


@dataclass(frozen=True, kw_only=True)
class Sysctl:
    """A parameter of the kernel's, of those that belong to a container; `name` with dots."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """All of it. `writable`: bytes that may be written to the root, 0 for half of the RAM.

    `reports` is one of REPORTS; `host_reports`: the host may ask for some of its own, never beside "raw".
    `end_on_refusal`: what the host must not do ends the guest.
    `masked_paths` are not seen, `read_only_paths` and with `read_only_root` the root not written to; a string names an
    engine's. `host_exec`: the host may start any command in the container. `network` is one of NETWORKS.
    """

    root: Tar | Verity
    process: Process
    exec: tuple[Exec, ...] = ()
    mounts: tuple[Mount, ...] = ()
    files: tuple[SuppliedFile, ...] = ()
    folders: tuple[HostFolder, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    network: str = "none"
    hostname: str = "sev-guest"
    host_names_it: bool = False
    writable: int = 0
    masked_paths: tuple[str, ...] | str = ()
    read_only_paths: tuple[str, ...] | str = ()
    read_only_root: bool = False
    reports: str = "none"
    host_reports: bool = False
    host_exec: bool = False
    end_on_refusal: bool = False

    def value(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "exec": [{"count": e.count, "name": e.name, "process": e.process.value()} for e in self.exec],
            "host": {
                "exec": self.host_exec,
                "files": [{"bytes": file.length, "target": file.target} for file in self.files],
                "folders": [folder.value() for folder in self.folders],
                "hostname": self.host_names_it,
                "network": self.network != "none",
                "reports": self.host_reports,
            },
            "hostname": self.hostname,
            "masked_paths": _named(self.masked_paths, list),
            "mounts": [mount.value() for mount in self.mounts],
            "network": self.network,
            "process": self.process.value(),
            "read_only_paths": _named(self.read_only_paths, list),
            "read_only_root": self.read_only_root,
            "refusal": "end" if self.end_on_refusal else "continue",
            "reports": self.reports,
            "root": self.root.value(),
            "sysctls": [{"name": one.name, "value": one.value} for one in self.sysctls],
            "version": VERSION,
            "writable_bytes": self.writable,
        }

    @cached_property
    def data(self) -> bytes:
        """Its bytes."""
        return canonical.encode(self.value())

    @property
    def sha256(self) -> str:
        """What stands on the measured command line, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()
