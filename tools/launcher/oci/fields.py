# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Every field of config.json, and what becomes of it: OCI runtime specification 1.2, specs-go/config.go.

One table: docs/oci-fields.md shows it, a test holds it against a list of all fields of the specification.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tools.launcher.base.errors import UserError

_SHOWN = 60


class Verdict(StrEnum):
    """What becomes of a field."""

    HONOURED = "honoured"
    SATISFIED = "satisfied"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Field:
    """The verdict and its reason; `option`: what makes an engine write the field, as people type it."""

    verdict: Verdict
    reason: str
    option: str = ""


def _rows(verdict: Verdict, *rows: tuple[str, ...]) -> Iterator[tuple[str, Field]]:
    """A row: paths with blanks between them, the reason, and an option; `a.(b c)` is `a.b` and `a.c`."""
    for paths, reason, *option in rows:
        head, opened, tail = paths.partition("(")
        for name in tail.rstrip(")").split() if opened else paths.split():
            path = head + name if opened else name
            yield path, Field(verdict=verdict, reason=reason, option="".join(option))


_HOOK = "(path args env timeout)"
FIELDS: Mapping[str, Field] = dict(
    [
        *_rows(
            Verdict.HONOURED,
            ("ociVersion", "1.0 and later of 1: a field that is new is refused, as any that is unknown"),
            ("process.terminal", "a terminal of the guest", "-t"),
            ("process.consoleSize.(height width)", "the first size of the terminal"),
            ("process.user.(uid gid umask additionalGids)", "in the document", "--user, --group-add, --umask"),
            ("process.args", "in the document, without the engine's init: the guest has its own"),
            ("process.env", "in the document, sorted; HOME is added as runc does", "--env"),
            ("process.cwd", "in the document", "--workdir"),
            ("process.capabilities.(bounding effective inheritable permitted ambient)",
             "in the document, as exec leaves them", "--cap-add, --cap-drop"),
            ("process.rlimits[].(type hard soft)", "in the document", "--ulimit"),
            ("process.noNewPrivileges", "in the document", "--security-opt no-new-privileges"),
            ("root.path", "its layers are the guest's disk"),
            ("root.readonly", "in the document", "--read-only"),
            ("hostname", "in the document; the host's where the engine made it of the container's id", "--hostname"),
            ("domainname", "a sysctl of the guest", "--domainname"),
            ("mounts[].(destination type source options)",
             "the guest's own, memory, or what the host supplies", "--volume, --mount, --tmpfs, --shm-size"),
            (f"hooks.prestart[].{_HOOK}", "run on the host, before those of createRuntime"),
            (f"hooks.createRuntime[].{_HOOK}", "run on the host"),
            (f"hooks.createContainer[].{_HOOK}", "run on the host, where the container has no mount namespace"),
            (f"hooks.poststart[].{_HOOK}", "run on the host"),
            (f"hooks.poststop[].{_HOOK}", "run on the host"),
            ("annotations", "those that the runtime's configuration allows by name; others mean nothing to it"),
            ("linux.sysctl", "in the document: those that a container has to itself", "--sysctl"),
            ("linux.resources.devices[].(allow type major minor access)",
             "rules for devices that every container has are satisfied by the guest's own /dev, others refused",
             "--device-cgroup-rule"),
            ("linux.resources.memory.limit", "the guest's RAM", "--memory"),
            ("linux.resources.cpu.(quota period cpus)", "so many vCPUs, and the container's cgroup",
             "--cpus, --cpuset-cpus"),
            ("linux.cgroupsPath", "the cgroup of the monitor and QEMU"),
            ("linux.namespaces[].(type path)",
             "the guest has its own pid, ipc, uts, mount and cgroup namespace; the network's may have a path"),
            ("linux.seccomp.(defaultAction defaultErrnoRet)", "in the document", "--security-opt seccomp"),
            ("linux.seccomp.syscalls[].(names action errnoRet)", "in the document", "--security-opt seccomp"),
            ("linux.seccomp.syscalls[].args[].(index value valueTwo op)", "in the document", "--security-opt seccomp"),
            ("linux.seccomp.(architectures flags)",
             "the guest's programs are x86-64 ones, calls of others are unknown to it; of flags none weakens it"),
            ("linux.(maskedPaths readonlyPaths)", "in the document", "--security-opt systempaths"),
        ),
        *_rows(
            Verdict.SATISFIED,
            ("process.user.username", "means something on Windows; here the ids say who it is"),
            ("process.apparmorProfile",
             "guards the host's kernel, which the container does not reach; the guest's has no AppArmor",
             "--security-opt apparmor"),
            ("process.(selinuxLabel)", "guards the host's files, which the container does not reach",
             "--security-opt label"),
            ("linux.mountLabel", "labels the host's files, which the container does not reach", "--security-opt label"),
            ("process.oomScoreAdj", "orders the processes of one kernel; the guest's has this container alone",
             "--oom-score-adj"),
            ("linux.resources.memory.(reservation swap swappiness kernel kernelTCP useHierarchy checkBeforeUpdate)",
             "divide the host's memory between containers; the guest has its RAM, and no swap space",
             "--memory-reservation, --memory-swap, --memory-swappiness, --kernel-memory"),
            ("linux.resources.cpu.(shares burst idle mems)",
             "weigh containers of one host against each other; a wish, which no program can rely on",
             "--cpu-shares, --cpuset-mems"),
            ("linux.resources.pids.limit", "guards the host's other processes; in the guest are its own",
             "--pids-limit"),
            ("linux.resources.blockIO.(weight leafWeight weightDevice)",
             "weigh containers of one host against each other; the guest writes to its memory", "--blkio-weight"),
            ("linux.resources.hugepageLimits", "the guest's kernel has no pool of huge pages"),
            ("linux.resources.rdma", "the guest has no such device"),
            ("linux.seccomp.listenerMetadata", "belongs to listenerPath"),
        ),
        *_rows(
            Verdict.REFUSED,
            ("process.commandLine", "is a program's on Windows"),
            ("process.scheduler", "a guest's vCPUs are scheduled by the host, whatever policy its programs have"),
            ("process.ioPriority", "the guest writes to its memory"),
            ("process.execCPUAffinity", "the host's CPUs are not the guest's"),
            ("mounts[].(uidMappings gidMappings)", "the guest has no mounts with other owners"),
            ("hooks.startContainer", "it would be a program of the host that runs in the guest"),
            ("linux.(uidMappings gidMappings)", "the guest has one user namespace; it is a boundary by itself",
             "--userns, userns-remap, an engine without root"),
            ("linux.resources.memory.disableOOMKiller", "a guest whose memory is full must end something",
             "--oom-kill-disable"),
            ("linux.resources.cpu.(realtimeRuntime realtimePeriod)", "no vCPU has real time",
             "--cpu-rt-runtime, --cpu-rt-period"),
            ("linux.resources.blockIO.(throttleReadBpsDevice throttleWriteBpsDevice)",
             "the container has no device of the host's", "--device-read-bps, --device-write-bps"),
            ("linux.resources.blockIO.(throttleReadIOPSDevice throttleWriteIOPSDevice)",
             "the container has no device of the host's", "--device-read-iops, --device-write-iops"),
            ("linux.resources.network", "the guest's packets carry no class of the host's"),
            ("linux.resources.unified", "keys of the host's cgroups by name cannot be checked", "--cgroup-conf"),
            ("linux.devices", "a device of the host's cannot be in the guest", "--device"),
            ("linux.seccomp.listenerPath", "nobody on the host can answer for the guest's kernel"),
            ("linux.rootfsPropagation", "mounts go neither into the guest nor out of it",
             "--volume with shared or slave"),
            ("linux.intelRdt", "divides the host's caches"),
            ("linux.personality", "the guest's programs are those of Linux on x86-64"),
            ("linux.timeOffsets", "the guest has a clock of its own"),
            ("solaris windows zos", "is of another system"),
            ("vm", "what hypervisor, kernel and image are is measured: the runtime's configuration says it"),
        ),
    ]
)  # fmt: skip
"""By path; `[]` stands for each element of an array. A field without children here stands for all below it."""

_INNER = {path[: at + 1] for path in FIELDS for at, character in enumerate(path) if character == "."}
"""What paths of the table begin with, up to a dot."""
_PRIVATE = ("private", "rprivate")
"""What a mount is when nobody says it."""


def check(value: Any, *, where: str) -> None:
    """UserError for a field that is unknown, or refused and says something."""
    _check(value, "", where)


def _check(value: Any, path: str, where: str) -> None:
    if value is None:
        return
    field = FIELDS.get(path)
    if field is not None:
        if field.verdict is Verdict.REFUSED and not _says_nothing(path, value):
            raise refusal(path, where=where)
    elif isinstance(value, dict) and (not path or f"{path}." in _INNER):
        for key, inner in value.items():
            _check(inner, f"{path}.{key}" if path else key, where)
    elif isinstance(value, list) and f"{path}[]." in _INNER:
        for inner in value:
            _check(inner, f"{path}[]", where)
    elif f"{path}." in _INNER or f"{path}[]." in _INNER:
        raise UserError("is neither an object nor an array, as it must be", where=f"{where}: {path}")
    else:
        raise UserError(
            f"{path[-_SHOWN:]!r} is no field that this runtime knows, and what it does not know it cannot honour",
            where=where,
        )


def refusal(path: str, *, where: str) -> UserError:
    """What is said of a field that is refused."""
    field = FIELDS[path]
    option = f" (from {field.option})" if field.option else ""
    return UserError(f"refused{option}: {field.reason}", where=f"{where}: {path}")


def _says_nothing(path: str, value: Any) -> bool:
    """Engines write some fields whatever they mean by them: false, zero and empty are no demand."""
    if path == "linux.rootfsPropagation" and value in _PRIVATE:
        return True
    if isinstance(value, dict):
        return all(_says_nothing("", inner) for inner in value.values())
    return not value
