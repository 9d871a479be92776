# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What container engines give a process by default, under names that a workload document may use in its place.

A name means the same for ever: what a newer engine does differently gets the next number. The agent has the same table
(initramfs/agent/src/workload/engines.json); a test compares them. Taken from the config.json that each engine handed to
its runtime on x86-64 with Debian's packages and no options: docker-1 is Docker 20.10.24, docker-2 26.1.5, podman-1
podman 4.3.1, podman-2 5.4.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tools.sev.workload.calls import Argument, Calls, Rule

_NEW_NAMESPACES = 0x7E020000
"""Flags of clone: all that make a namespace (include/uapi/linux/sched.h)."""
_PERSONALITY, _CLONE, _CLONE3, _SOCKET = 135, 56, 435, 41
"""Numbers of calls on x86-64: arch/x86/entry/syscalls/syscall_64.tbl."""
_AF_NETLINK, _AF_VSOCK, _NETLINK_AUDIT = 16, 40, 9
"""include/linux/socket.h, include/uapi/linux/netlink.h."""
_EPERM, _EINVAL, _ENOSYS = 1, 22, 38


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """An engine's; `capabilities` bound the process, `rlimits` are name, soft and hard limit."""

    capabilities: tuple[str, ...]
    rlimits: tuple[tuple[str, int, int], ...]
    seccomp: Calls
    masked_paths: tuple[str, ...]
    read_only_paths: tuple[str, ...]

    def value(self) -> dict[str, Any]:
        """Each as a document would have it, but for the sets of capabilities, which hang on the uid."""
        return {
            "capabilities": list(self.capabilities),
            "masked_paths": list(self.masked_paths),
            "read_only_paths": list(self.read_only_paths),
            "rlimits": [{"hard": hard, "name": name, "soft": soft} for name, soft, hard in self.rlimits],
            "seccomp": self.seccomp.value(),
        }


def _calls(ranges: str) -> tuple[int, ...]:
    pairs = [(first, last or first) for first, _, last in (part.partition("-") for part in ranges.split())]
    return tuple(number for first, last in pairs for number in range(int(first), int(last) + 1))


def _allow(ranges: str) -> Rule:
    return Rule(calls=_calls(ranges), action="allow")


def _is(call: int, index: int, value: int, operator: str = "eq") -> Rule:
    """Allowed when the argument is, or is not, this."""
    return Rule(calls=(call,), action="allow", arguments=(Argument(index=index, operator=operator, value=value),))


_PERSONALITIES = tuple(_is(_PERSONALITY, 0, value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF))
"""Linux, Linux32, either of them with UNAME26, and the question which one it is."""
_SAME_NAMESPACES = Rule(
    calls=(_CLONE,),
    action="allow",
    arguments=(Argument(index=0, operator="eq", value=0, mask=_NEW_NAMESPACES),),
)
_NO_CLONE3 = Rule(calls=(_CLONE3,), action=_ENOSYS)
_AUDIT = (Argument(index=0, operator="eq", value=_AF_NETLINK), Argument(index=2, operator="eq", value=_NETLINK_AUDIT))
_NO_AUDIT = (
    Rule(calls=(_SOCKET,), action=_EINVAL, arguments=_AUDIT),
    _is(_SOCKET, 2, _NETLINK_AUDIT, "ne"),
    _is(_SOCKET, 0, _AF_NETLINK, "ne"),
)

_DOCKER_CAPABILITIES = (
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
)
_PODMAN_CAPABILITIES = (
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
)
_DOCKER_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PODMAN_READ_ONLY = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PODMAN_RLIMITS = (("nofile", 1 << 20, 1 << 20), ("nproc", 1 << 22, 1 << 22))
"""Where the host's own limits are not lower: then podman writes those."""
_DOCKER_1_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
)
_DOCKER_2_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_PODMAN_1_MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/firmware",
    "/sys/fs/selinux",
)
_PODMAN_2_MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)

_DOCKER_1_CALLS = Calls(
    default=_EPERM,
    rules=(
        *_PERSONALITIES,
        _SAME_NAMESPACES,
        _allow(
            "0-55 57-102 104-133 137-138 140-152 154 157-162 186-211 213-226 228-235 240-245 247 251-255 257-271 "
            "273-278 280-297 299 301-302 305-307 309 314-319 322 324-328 332-334 424-427 434 436-437 439 441 "
            "444-449"
        ),
        _NO_CLONE3,
    ),
)
_DOCKER_2_CALLS = Calls(
    default=_EPERM,
    rules=(
        _is(_SOCKET, 0, _AF_VSOCK, "ne"),
        *_PERSONALITIES,
        _SAME_NAMESPACES,
        _allow(
            "0-40 42-55 57-102 104-133 137-138 140-152 154 157-162 186-211 213-226 228-235 240-245 247 251-255 "
            "257-271 273-278 280-297 299 301-303 305-307 309-311 314-319 322 324-334 424 434 436-437 439 441 "
            "444-449 451-456"
        ),
        _NO_CLONE3,
    ),
)
_PODMAN_1_CALLS = Calls(
    default=_ENOSYS,
    rules=(
        *_PERSONALITIES,
        *_NO_AUDIT,
        _allow(
            "0-40 42-133 137-138 140-152 154-155 157-162 165-166 169 186-211 213-226 228-235 237-245 247 250-255 "
            "257-277 280-297 299 301-303 305-311 314-319 322 324-332 334 424 428-439 441-442 444-448"
        ),
        Rule(
            calls=_calls(
                "134 136 139 153 163-164 167-168 170-173 175-176 178-180 212 227 246 256 278-279 298 300 304 312-313 "
                "320-321 323 333 440"
            ),
            action=_EPERM,
        ),
    ),
)
_PODMAN_2_CALLS = Calls(
    default=_ENOSYS,
    rules=(
        *_PERSONALITIES,
        *_NO_AUDIT,
        _allow(
            "0-40 42-133 137-138 140-152 154-155 157-162 165-166 169 186-211 213-226 228-235 237-245 247 250-255 "
            "257-277 280-297 299 301-303 305-311 314-319 322 324-332 334 424 428-439 441-442 444-448 452"
        ),
        Rule(
            calls=_calls(
                "134 136 139 153 163-164 167-168 170-173 175-176 178-180 212 227 246 256 278-279 298 300 304 312-313 "
                "320-321 323 333 440 443 449 451 453-456"
            ),
            action=_EPERM,
        ),
    ),
)

ENGINES: Mapping[str, Defaults] = MappingProxyType(
    {
        "docker-1": Defaults(
            capabilities=_DOCKER_CAPABILITIES,
            rlimits=(),
            seccomp=_DOCKER_1_CALLS,
            masked_paths=_DOCKER_1_MASKED,
            read_only_paths=_DOCKER_READ_ONLY,
        ),
        "docker-2": Defaults(
            capabilities=_DOCKER_CAPABILITIES,
            rlimits=(),
            seccomp=_DOCKER_2_CALLS,
            masked_paths=_DOCKER_2_MASKED,
            read_only_paths=_DOCKER_READ_ONLY,
        ),
        "podman-1": Defaults(
            capabilities=_PODMAN_CAPABILITIES,
            rlimits=_PODMAN_RLIMITS,
            seccomp=_PODMAN_1_CALLS,
            masked_paths=_PODMAN_1_MASKED,
            read_only_paths=_PODMAN_READ_ONLY,
        ),
        "podman-2": Defaults(
            capabilities=_PODMAN_CAPABILITIES,
            rlimits=_PODMAN_RLIMITS,
            seccomp=_PODMAN_2_CALLS,
            masked_paths=_PODMAN_2_MASKED,
            read_only_paths=_PODMAN_READ_ONLY,
        ),
    }
)
"""By name."""


def table() -> dict[str, Any]:
    """All of them, as the agent has them."""
    return {name: defaults.value() for name, defaults in ENGINES.items()}
