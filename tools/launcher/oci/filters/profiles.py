# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What engines' filters of system calls are for other capabilities than the default ones, and filters from files.

An engine's own profile is a list of rules, some for containers that have a capability and some for those that lack it:
moby's profiles/seccomp/default.json, podman's /usr/share/containers/seccomp.json. The rules for all containers, and
those for the default capabilities, are in tools/sev/workload/engines.py.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.launcher.oci.filters import seccomp
from tools.launcher.oci.filters.syscalls import NUMBERS
from tools.launcher.oci.values import Table
from tools.sev.workload.calls import Argument, Calls, Rule, gathered
from tools.sev.workload.engines import ENGINES

_EPERM, _ENOSYS = 1, 38
_ARCHITECTURES = ("amd64", "x86_64")
_NEW_NAMESPACES = 0x7E020000


@dataclass(frozen=True, kw_only=True)
class _If:
    """Calls for which there is a rule when the container has the capability, or has none of `lacks`."""

    has: str = ""
    lacks: tuple[str, ...] = ()
    calls: str
    action: str | int = "allow"
    arguments: tuple[Argument, ...] = ()

    def rules(self, capabilities: Collection[str]) -> Sequence[Rule]:
        """None, or one for each call."""
        if (self.has and self.has not in capabilities) or not set(self.lacks).isdisjoint(capabilities):
            return ()
        numbers = (NUMBERS[name] for name in self.calls.split())
        return [Rule(calls=(number,), action=self.action, arguments=self.arguments) for number in numbers]


def _either(capability: str, calls: str) -> tuple[_If, ...]:
    """podman denies by name what it does not allow: an unknown call fails otherwise."""
    return _If(has=capability, calls=calls), _If(lacks=(capability,), calls=calls, action=_EPERM)


_SAME_NAMESPACES = (Argument(index=0, operator="eq", value=0, mask=_NEW_NAMESPACES),)
_ADMIN = (
    "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
    "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare"
)
_TRACE = "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"
_DOCKER = (
    _If(has="dac_read_search", calls="open_by_handle_at"),
    _If(lacks=("sys_admin",), calls="clone", arguments=_SAME_NAMESPACES),
    _If(lacks=("sys_admin",), calls="clone3", action=_ENOSYS),
    _If(has="sys_boot", calls="reboot"),
    _If(has="sys_chroot", calls="chroot"),
    _If(has="sys_module", calls="delete_module init_module finit_module"),
    _If(has="sys_pacct", calls="acct"),
    _If(has="sys_ptrace", calls=_TRACE),
    _If(has="sys_rawio", calls="iopl ioperm"),
    _If(has="sys_time", calls="settimeofday clock_settime"),
    _If(has="sys_tty_config", calls="vhangup"),
    _If(has="syslog", calls="syslog"),
)
_DOCKER_1 = (
    *_DOCKER,
    _If(has="sys_admin", calls=f"{_ADMIN} name_to_handle_at"),
    _If(has="sys_nice", calls="get_mempolicy mbind set_mempolicy"),
)
_DOCKER_2 = (
    *_DOCKER,
    _If(has="sys_admin", calls=_ADMIN),
    _If(has="sys_nice", calls="get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    _If(has="bpf", calls="bpf"),
    _If(has="perfmon", calls="perf_event_open"),
)
_AF_NETLINK = Argument(index=0, operator="eq", value=16)
_NETLINK_AUDIT = Argument(index=2, operator="eq", value=9)
_PODMAN = (
    *_either("dac_read_search", "open_by_handle_at"),
    *_either("sys_chroot", "chroot"),
    *_either("sys_module", "delete_module finit_module init_module query_module"),
    *_either("sys_pacct", "acct"),
    *_either("sys_ptrace", "kcmp process_madvise"),
    *_either("sys_rawio", "ioperm iopl"),
    *_either("sys_time", "clock_settime settimeofday"),
    *_either("sys_tty_config", "vhangup"),
    _If(lacks=("audit_write",), calls="socket", action=22, arguments=(_AF_NETLINK, _NETLINK_AUDIT)),
    _If(lacks=("audit_write",), calls="socket", arguments=(Argument(index=2, operator="ne", value=9),)),
    _If(lacks=("audit_write",), calls="socket", arguments=(Argument(index=0, operator="ne", value=16),)),
    _If(has="audit_write", calls="socket"),
)
_PODMAN_1 = (
    *_PODMAN,
    *_either(
        "sys_admin", "bpf fanotify_init lookup_dcookie perf_event_open quotactl setdomainname sethostname setns"
    ),
)  # fmt: skip
_PODMAN_2 = (
    *_PODMAN,
    _If(
        has="sys_admin",
        calls="bpf fanotify_init lookup_dcookie quotactl quotactl_fd setdomainname sethostname setns",
    ),
    _If(
        lacks=("sys_admin",),
        calls="fanotify_init lookup_dcookie perf_event_open quotactl quotactl_fd setdomainname sethostname setns",
        action=_EPERM,
    ),
    _If(lacks=("sys_admin", "bpf"), calls="bpf", action=_EPERM),
    _If(has="bpf", calls="bpf"),
    _If(lacks=("sys_admin", "bpf"), calls="perf_event_open", action=_EPERM),
    _If(has="perfmon", calls="perf_event_open"),
)
_CONDITIONS: Mapping[str, tuple[_If, ...]] = {
    "docker-1": _DOCKER_1, "docker-2": _DOCKER_2, "podman-1": _PODMAN_1, "podman-2": _PODMAN_2,
}  # fmt: skip


def of_engine(name: str, capabilities: Collection[str]) -> Calls:
    """The filter that an engine's container with these capabilities has."""
    engine = ENGINES[name]
    always = {
        (call, rule.arguments, rule.action): None
        for rule in engine.seccomp.rules
        for call in rule.calls
    }  # fmt: skip
    for condition in _CONDITIONS[name]:
        for rule in condition.rules(engine.capabilities):
            always.pop((rule.calls[0], rule.arguments, rule.action), None)
    rules = [Rule(calls=(call,), arguments=arguments, action=action) for call, arguments, action in always]
    rules += [rule for condition in _CONDITIONS[name] for rule in condition.rules(capabilities)]
    return gathered(engine.seccomp.default, rules)


def of_file(value: Any, capabilities: Collection[str], *, where: str) -> Calls:
    """The filter that a file means: the engines' form, whose rules may be for some machines and capabilities only."""
    table = Table(value, where=where)
    chosen = [
        _as_oci(entry, raw)
        for entry, raw in zip(table.tables("syscalls"), value.get("syscalls") or [], strict=True)
        if _applies(entry.table("includes"), capabilities) and not _excluded(entry.table("excludes"), capabilities)
    ]
    return seccomp.read(Table({**value, "syscalls": chosen, "architectures": None}, where=where))


def _as_oci(entry: Table, raw: Any) -> Any:
    """With `name`, as old files have it, in the place of `names`."""
    if not entry.has("name"):
        return raw
    if entry.has("names"):
        raise entry.fault("name", "stands beside names")
    return {**raw, "names": [entry.text("name")]}


def _applies(includes: Table, capabilities: Collection[str]) -> bool:
    machines = includes.words("arches")
    return all(_has(name, capabilities) for name in includes.words("caps")) and (
        not machines or not set(_ARCHITECTURES).isdisjoint(machines)
    )


def _excluded(excludes: Table, capabilities: Collection[str]) -> bool:
    return any(_has(name, capabilities) for name in excludes.words("caps")) or not set(_ARCHITECTURES).isdisjoint(
        excludes.words("arches")
    )


def _has(name: str, capabilities: Collection[str]) -> bool:
    return name.lower().removeprefix("cap_") in capabilities
