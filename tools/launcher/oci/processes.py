# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The object `process` of a config.json, and the file that an engine hands to exec."""

from tools.launcher.base.errors import UserError
from tools.launcher.base.errors import suggestion as did_you_mean
from tools.launcher.oci.container import ContainerProcess
from tools.launcher.oci.values import Table
from tools.sev.workload.canonical import INTEGER_MAX
from tools.sev.workload.document import CAPABILITIES, RLIMITS, Capabilities, Rlimit
from tools.sev.workload.reader import GROUPS_MAX, ID_MAX

_UNLIMITED = (1 << 64) - 1
"""RLIM_INFINITY."""
_SIDE_MAX = 0xFFFF
"""Rows and columns: struct winsize."""
_UMASK_MAX = 0o777


def read(table: Table) -> ContainerProcess:
    """The process; UserError names the key."""
    user = table.table("user")
    uid = user.number("uid", high=ID_MAX) or 0
    argv = table.words("args")
    if not argv or not argv[0]:
        raise table.fault("args", "has no program")
    cwd = table.text("cwd", "/")
    if not cwd.startswith("/") or ".." in cwd.split("/"):
        raise table.fault("cwd", f"is {cwd[:100]!r}, which is no absolute path without '..'")
    size = table.table("consoleSize")
    rows, columns = (size.number(key, high=_SIDE_MAX) or 0 for key in ("height", "width"))
    groups = sorted(set(user.numbers("additionalGids", high=ID_MAX)))
    if len(groups) > GROUPS_MAX:
        raise user.fault("additionalGids", f"has more than {GROUPS_MAX} groups")
    return ContainerProcess(
        argv=argv,
        environment=_environment(table),
        cwd=plain(cwd),
        uid=uid,
        gid=user.number("gid", high=ID_MAX) or 0,
        groups=tuple(groups),
        umask=user.number("umask", high=_UMASK_MAX),
        terminal=table.flag("terminal"),
        size=(rows, columns) if rows and columns else None,
        capabilities=_capabilities(table.table("capabilities"), uid=uid),
        rlimits=_rlimits(table),
        no_new_privileges=table.flag("noNewPrivileges"),
    )


def plain(path: str) -> str:
    """An absolute path in the one form that a document has it in."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _environment(table: Table) -> tuple[str, ...]:
    """Each name once: as with runc, the last one counts."""
    found: dict[str, str] = {}
    for entry in table.words("env"):
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise table.fault("env", f"has an entry {name[:60]!r}, which is no NAME=VALUE")
        found[name] = value
    return tuple(f"{name}={value}" for name, value in found.items())


def _capabilities(table: Table, *, uid: int) -> Capabilities:
    # What is effective is only ever what is permitted, once the program has started.
    _names(table, "effective")
    sets = {key: _names(table, key) for key in ("bounding", "permitted", "inheritable", "ambient")}
    return surviving(**sets, uid=uid)


def surviving(
    *, bounding: set[str], permitted: set[str], inheritable: set[str], ambient: set[str], uid: int
) -> Capabilities:
    """What the kernel leaves of the sets when the program starts: capabilities(7), "Transformation during execve"."""
    inheritable = inheritable & bounding
    # Only what is permitted and inheritable can be ambient.
    ambient = ambient & inheritable & permitted
    left = bounding if uid == 0 else ambient
    return Capabilities(
        bounding=tuple(sorted(bounding)),
        permitted=tuple(sorted(left)),
        effective=tuple(sorted(left)),
        inheritable=tuple(sorted(inheritable)),
        ambient=tuple(sorted(ambient)),
    )


def _names(table: Table, key: str) -> set[str]:
    found = set()
    for word in table.words(key):
        name = word.lower().removeprefix("cap_")
        if name not in CAPABILITIES:
            raise table.fault(key, f"has {word[:60]!r}, which is no capability{did_you_mean(name, CAPABILITIES)}")
        found.add(name)
    return found


def _rlimits(table: Table) -> tuple[Rlimit, ...]:
    found: dict[str, Rlimit] = {}
    for entry in table.tables("rlimits"):
        kind = entry.text("type")
        name = kind.removeprefix("RLIMIT_").lower()
        if name not in RLIMITS or not kind.startswith("RLIMIT_"):
            raise entry.fault("type", f"is {kind[:60]!r}, which is no resource limit")
        if name in found:
            raise entry.fault("type", f"is {kind} a second time")
        soft, hard = (_limit(entry, key) for key in ("soft", "hard"))
        if hard is not None and (soft is None or soft > hard):
            raise entry.fault("soft", "is above the hard limit")
        found[name] = Rlimit(name=name, soft=soft, hard=hard)
    return tuple(found[name] for name in sorted(found))


def _limit(entry: Table, key: str) -> int | None:
    number = entry.number(key, high=_UNLIMITED)
    if number is None:
        raise entry.fault(key, "is missing")
    if number == _UNLIMITED:
        return None
    if number > INTEGER_MAX:
        raise UserError(f"is more than {INTEGER_MAX}, but not unlimited ({_UNLIMITED})", where=f"{entry.where}.{key}")
    return number
