# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The options of an engine's `run` that come into a workload document, for `digest --image`."""

import json
import re
import shlex
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError, suggestion
from tools.launcher.base.values import Values
from tools.launcher.oci import predicted
from tools.launcher.oci.predicted import RunOptions, Volume
from tools.launcher.oci.settings import Command
from tools.launcher.options.parser import Group, Option
from tools.launcher.options.program import given_environment
from tools.sev.limits import VCPUS_MAX
from tools.sev.workload.canonical import INTEGER_MAX
from tools.sev.workload.document import CAPABILITIES, RLIMITS, Rlimit

_SIZE = re.compile(r"([0-9]{1,15})(?:\.0*)?([bkmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_FILE_MAX = 1 << 20
_UNLIMITED = "-1"
_HOSTS_OWN = ("apparmor=", "apparmor:", "label=", "label:")
"""Security options that guard the host, so that a guest has them anyway."""


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or not 0 < int(match[1]) << _UNITS[match[2].lower()] <= INTEGER_MAX:
        raise ValueError(f"{text[:80]!r} is no size as in 512m or 2g")
    return int(match[1]) << _UNITS[match[2].lower()]


def cpus(text: str) -> Decimal:
    """Converter for a number of CPUs, which an engine may have in parts."""
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", text) is None or not 0 < Decimal(text) <= VCPUS_MAX:
        raise ValueError(f"{text[:80]!r} is no number of CPUs up to {VCPUS_MAX}")
    return Decimal(text)


def _capability(text: str) -> str:
    name = text.lower().removeprefix("cap_")
    if name not in CAPABILITIES and name != predicted.ALL:
        raise ValueError(f"{text[:80]!r} is no capability{suggestion(name, CAPABILITIES)}")
    return name


def _target(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"{text[:80]!r} is no absolute path without '..'")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


def _tmpfs(text: str) -> tuple[str, tuple[str, ...]]:
    target, _, options = text.partition(":")
    return _target(target), tuple(option for option in options.split(",") if option)


def _volume(text: str) -> Volume:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not parts[0]:
        raise ValueError(f"{text[:80]!r} is no SOURCE:TARGET[:ro]")
    options = parts[2].split(",") if len(parts) == 3 else []
    return Volume(source=parts[0], target=_target(parts[1]), write="ro" not in options)


def _rlimit(text: str) -> Rlimit:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    if name not in RLIMITS:
        raise ValueError(f"{name[:40]!r} is no resource limit{suggestion(name, RLIMITS)}")
    return Rlimit(name=name, soft=_limit(soft), hard=_limit(hard or soft))


def _limit(text: str) -> int | None:
    if text == _UNLIMITED:
        return None
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise ValueError(f"{text[:40]!r} is no limit: a number, or -1 for none")
    return int(text)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text[:80]!r} is no NAME=VALUE")
    return name, value


def _umask(text: str) -> int:
    if re.fullmatch(r"[0-7]{1,4}", text) is None or int(text, 8) > 0o777:
        raise ValueError(f"{text[:80]!r} is no umask in octal")
    return int(text, 8)


def _command(text: str) -> Command:
    argv = tuple(shlex.split(text))
    if not argv:
        raise ValueError("is empty")
    return Command(argv=argv)


CONTAINER = Group(
    "a container of an image, as an engine makes it (docs/digest-of-an-image.md); other options of its "
    "`run` change no digest, or are refused",
    Option("--image", "PATH", text="an OCI image layout, or what `docker save` wrote", convert=Path),
    Option("--image-name", "NAME", text="which image, where PATH holds several: its name, or its digest"),
    Option("--engine", choices=tuple(predicted.NAMES), text="whose defaults; default: docker", default="docker"),
    Option("--interactive", text="standard input is open", short="-i"),
    Option("--entrypoint", "WORD", text="instead of the image's entrypoint and command; '' for none"),
    Option("--group-add", "GROUP", text="one more group", many=True),
    Option("--cap-drop", "NAME", text="one capability less, or all", convert=_capability, many=True),
    Option("--read-only", text="nobody writes to the root"),
    Option("--init", text="changes nothing: the guest has its own"),
    Option("--tmpfs", "TARGET[:OPTION,…]", text="memory, as in /run:size=16m,mode=0755", convert=_tmpfs, many=True),
    Option("--shm-size", "SIZE", text="of /dev/shm; default: docker's 64m, podman's 65536000", convert=_bytes),
    Option("--volume", "SOURCE:TARGET[:ro]", text="a folder of the host's", convert=_volume, many=True, short="-v"),
    Option("--ulimit", "NAME=SOFT[:HARD]", text="-1 for none", convert=_rlimit, many=True),
    Option("--sysctl", "NAME=VALUE", text="a parameter of the container's own", convert=_assignment, many=True),
    Option("--security-opt", "WORD", text="no-new-privileges, seccomp=FILE, seccomp=unconfined or "
           "systempaths=unconfined", many=True),
    Option("--memory", "SIZE", text="RAM; a tmpfs without a size has half of it", convert=_bytes, short="-m"),
    Option("--network", "NAME", text="none, or any other for a guest with an interface"),
    Option("--domainname", "NAME", text="the NIS domain's"),
    Option("--umask", "MODE", text="podman's", convert=_umask),
    Option("--exec", "COMMAND", text="what the configuration lets the host start", convert=_command, many=True),
    *(
        Option(name, value, text="changes nothing here", short=short, many=bool(value))
        for name, value, short in (
            ("--name", "NAME", ""), ("--publish", "PORT", "-p"), ("--rm", "", ""), ("--detach", "", "-d"),
        )
    ),
    Option("--document", text="print the workload document, not the digest"),
)  # fmt: skip


def check_alone(values: Values) -> None:
    """UserError for an option of this group without --image."""
    for option in CONTAINER.options:
        if values[option.key] != option.initial:
            raise UserError(f"{option.name} belongs to --image")


def options_of(values: Values) -> RunOptions:
    """What was given; UserError names the option."""
    seccomp, unmasked, no_new_privileges = _security(values.security_opt)
    network = values.network or ""
    if network == "host" or network.startswith("container:"):
        raise UserError(f"--network {network[:80]}: refused by the runtime", hint="a guest has a network of its own")
    count = values.cpus
    return RunOptions(
        engine=values.engine,
        terminal=values.tty,
        environment=given_environment(values),
        user=values.user,
        groups=tuple(values.group_add),
        directory=values.workdir,
        entrypoint=values.entrypoint,
        argv=values.argv,
        hostname=values.hostname,
        domainname=values.domainname or "",
        read_only=values.read_only,
        cap_add=tuple(values.cap_add),
        cap_drop=tuple(values.cap_drop),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        unmasked=unmasked,
        tmpfs=dict(values.tmpfs),
        shm_size=values.shm_size,
        rlimits={limit.name: limit for limit in values.ulimit},
        sysctls=dict(values.sysctl),
        volumes=tuple(values.volume),
        umask=values.umask,
        network=network != "none",
        cpus=None if count is None else ceil(count),
        memory=values.memory,
    )


def _security(words: list[str]) -> tuple[Any, bool, bool]:
    seccomp: Any = predicted.DEFAULT_SECCOMP
    unmasked = no_new_privileges = False
    for word in words:
        if word in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
            no_new_privileges = True
        elif word.startswith("seccomp="):
            seccomp = _filter(word.removeprefix("seccomp="))
        elif word in ("systempaths=unconfined", "unmask=ALL", "unmask=all"):
            unmasked = True
        elif not word.startswith(_HOSTS_OWN):
            raise UserError(f"--security-opt {word[:80]}: cannot be computed", hint="is it misspelt?")
    return seccomp, unmasked, no_new_privileges


def _filter(name: str) -> Any:
    if name in (predicted.UNCONFINED, predicted.DEFAULT_SECCOMP):
        return name
    try:
        with Path(name).open("rb") as stream:
            data = stream.read(_FILE_MAX)
        return json.loads(data)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=f"--security-opt seccomp={name[:200]}") from None
    except (ValueError, RecursionError):
        raise UserError("is no JSON of a filter", where=f"--security-opt seccomp={name[:200]}") from None
