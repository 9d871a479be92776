# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From bytes to a workload document; FormatError names the file and the key."""

import re
from collections.abc import Sequence
from typing import Any

from tools.sev.errors import FormatError
from tools.sev.workload import calls, canonical
from tools.sev.workload.canonical import INTEGER_MAX
from tools.sev.workload.document import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    FILE_MAX,
    FOLDERS_MAX,
    GRAMMARS,
    LAYERS_MAX,
    NETWORKS,
    REPORTS,
    RLIMITS,
    VERSION,
    Capabilities,
    Document,
    Doors,
    Exec,
    HostFolder,
    Mount,
    Process,
    Rlimit,
    SuppliedFile,
    Sysctl,
    Tar,
    Variable,
    Verity,
)
from tools.sev.workload.engines import ENGINES
from tools.sev.workload.fields import Fields

ENTRIES_MAX = 4096
GROUPS_MAX = 1024
FEW = 64
ID_MAX = (1 << 32) - 2
"""The last number of the 32 bits means "leave unchanged" to the kernel."""
BLOCKS_MAX = 1 << 48
_HEX64 = r"[0-9a-f]{64}"
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
_HOSTNAME = r"[A-Za-z0-9.-]{1,64}"
_FOLDER = r"/|(/[^/]+)+"
_RESERVED = ("/proc", "/sys", "/dev")
_SYSCTL = r"(net|fs\.mqueue)(\.[A-Za-z0-9_-]+)+|kernel\.(shm[a-z_]*|msg[a-z_]*|sem|domainname)"
_SYSCTL_VALUE = r"[\x20-\x7e]{0,256}"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  in the guest


def parse(data: bytes, *, where: str) -> Document:
    """The document that `data` is, in its one form and valid in every value."""
    return from_value(canonical.decode(data, where=where), where=where)


def from_value(value: Any, *, where: str) -> Document:
    """The document that JSON values make."""
    top = Fields(value, where)
    version = top.integer("version", low=1, high=INTEGER_MAX)
    if version != VERSION:
        raise top.fault("version", f"is {version}, known is {VERSION}")
    host = top.table("host")
    document = Document(
        root=_root(top.table("root")),
        process=_process(top.table("process")),
        exec=top.items("exec", FEW, _exec),
        mounts=top.items("mounts", FEW, _mount),
        files=host.items("files", FEW, _file),
        folders=host.items("folders", FOLDERS_MAX, _shared),
        sysctls=top.items("sysctls", FEW, _sysctl),
        network=top.choice("network", *NETWORKS),
        hostname=top.text("hostname", pattern=_HOSTNAME, says="host name (1 to 64 of A–Z a–z 0–9 . -)"),
        host_names_it=host.flag("hostname"),
        writable=top.integer("writable_bytes", high=INTEGER_MAX),
        masked_paths=_named(top, "masked_paths") or top.rising("masked_paths", FEW, _path),
        read_only_paths=_named(top, "read_only_paths") or top.rising("read_only_paths", FEW, _path),
        read_only_root=top.flag("read_only_root"),
        reports=top.choice("reports", *REPORTS),
        host_reports=host.flag("reports"),
        host_exec=host.flag("exec"),
        end_on_refusal=top.choice("refusal", "continue", "end") == "end",
    )
    if host.flag("network") is not (document.network != "none"):
        # Whoever carries a guest's frames says where they come from, too.
        raise host.fault("network", f"must be {str(document.network != 'none').lower()} beside this network")
    if document.host_reports and document.reports == "raw":
        # Whoever writes REPORT_DATA itself could make a report that says that the host had asked.
        raise host.fault("reports", 'excludes "reports": "raw"')
    host.close()
    top.close()
    _distinct(top, "exec", [entry.name for entry in document.exec])
    _distinct(top, "mounts", [mount.target for mount in document.mounts])
    _distinct(host, "files", [file.target for file in document.files])
    _distinct(host, "folders", [folder.target for folder in document.folders])
    _ascending(top, "sysctls", [one.name for one in document.sysctls])
    return document


def _named(fields: Fields, key: str) -> str | None:
    """The name of an engine's defaults, where one stands."""
    return fields.one_of(key, ENGINES)


def _ascending(fields: Fields, key: str, names: Sequence[str]) -> None:
    if list(names) != sorted(set(names)):
        raise fields.fault(key, "is not sorted by name, or has duplicates")


def _distinct(fields: Fields, key: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise fields.fault(key, f"has {name[:80]!r} twice")


def _root(fields: Fields) -> Tar | Verity:
    root: Tar | Verity
    if fields.choice("form", "tar", "erofs-verity") == "tar":
        root = Tar(
            length=fields.integer("bytes", low=1, high=INTEGER_MAX),
            sha256=fields.text("sha256", pattern=_HEX64, says="SHA-256 in 64 lower-case hexadecimal digits"),
        )
    else:
        root = Verity(
            layers=fields.items("layers", LAYERS_MAX, lambda item: item.integer("item", low=1, high=BLOCKS_MAX)),
            root_hash=fields.text("root_hash", pattern=_HEX64, says="SHA-256 in 64 lower-case hexadecimal digits"),
            salt=fields.text("salt", pattern=r"([0-9a-f]{2}){0,256}", says="salt of 0 to 256 bytes in hexadecimal"),
        )
        if not root.layers or root.blocks > BLOCKS_MAX:
            raise fields.fault("layers", f"has none, or more than {BLOCKS_MAX} blocks in all")
    fields.close()
    return root


def _exec(item: Fields) -> Exec:
    fields = item.table("item")
    entry = Exec(
        name=fields.text("name", pattern=r"[A-Za-z0-9._-]{1,64}", says="name of 1 to 64 letters, digits and . _ -"),
        count=fields.integer("count", low=1, high=INTEGER_MAX),
        process=_process(fields.table("process")),
    )
    fields.close()
    return entry


def _process(fields: Fields) -> Process:
    uid = fields.integer("uid", high=ID_MAX)
    process = Process(
        argv=fields.items("argv", ENTRIES_MAX, _word),
        environment=fields.items("environment", ENTRIES_MAX, _assignment),
        cwd=_folder(fields, "cwd"),
        uid=uid,
        gid=fields.integer("gid", high=ID_MAX),
        groups=fields.rising("groups", GROUPS_MAX, lambda item: item.integer("item", high=ID_MAX)),
        capabilities=_named(fields, "capabilities") or _capabilities(fields.table("capabilities"), uid=uid),
        no_new_privileges=fields.flag("no_new_privileges"),
        rlimits=_named(fields, "rlimits") or fields.items("rlimits", len(RLIMITS), _rlimit),
        seccomp=_named(fields, "seccomp") or calls.read(fields),
        terminal=fields.flag("terminal"),
        umask=int(fields.text("umask", pattern=r"0[0-7]{3}", says="umask of four octal digits, the first 0"), 8),
        host=_doors(fields.table("host")),
    )
    fields.close()
    if process.host.resize and not process.terminal:
        raise fields.fault("host.resize", "is open, but there is no terminal to resize")
    if not process.argv or not process.argv[0]:
        raise fields.fault("argv", "has no program")
    names = [entry.partition("=")[0] for entry in process.environment]
    _distinct(fields, "environment", names + [variable.name for variable in process.host.environment])
    if not isinstance(process.rlimits, str):
        _ascending(fields, "rlimits", [limit.name for limit in process.rlimits])
    return process


def _capabilities(fields: Fields, *, uid: int) -> Capabilities | None:
    named = {
        key: fields.rising(key, len(CAPABILITIES), lambda item: item.choice("item", *CAPABILITIES))
        for key in ("bounding", "permitted", "effective", "inheritable", "ambient")
    }
    fields.close()
    sets = Capabilities(**named)
    fault = sets.fault(uid=uid)
    if fault is not None:
        raise FormatError(f"cannot be: {fault}", where=fields.where)
    return None if sets == Capabilities.of(DEFAULT_CAPABILITIES, uid=uid) else sets


def _word(item: Fields) -> str:
    return item.text("item", pattern=r".*", says="text without NUL of at most 1 MiB", longest=1 << 20)


def _assignment(item: Fields) -> str:
    return item.text("item", pattern=r"[^=]+=.*", says="NAME=VALUE without NUL", longest=1 << 20)


def _folder(fields: Fields, key: str) -> str:
    path = fields.text(key, pattern=_FOLDER, says="absolute path without // and / at its end")
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise fields.fault(key, "has a component . or ..")
    return path


def _path(item: Fields) -> str:
    path = _folder(item, "item")
    if path == "/":
        raise item.fault("item", "is the root")
    return path


def _target(fields: Fields) -> str:
    path = _folder(fields, "target")
    reserved = any(path == one or path.startswith(f"{one}/") for one in _RESERVED)
    if path == "/" or (reserved and path != _SHARED_MEMORY):
        raise fields.fault("target", f"is / or in {', '.join(_RESERVED)}, which are the agent's")
    return path


def _rlimit(item: Fields) -> Rlimit:
    fields = item.table("item")
    limit = Rlimit(
        name=fields.choice("name", *RLIMITS),
        soft=fields.limit("soft", INTEGER_MAX),
        hard=fields.limit("hard", INTEGER_MAX),
    )
    fields.close()
    if limit.hard is not None and (limit.soft is None or limit.soft > limit.hard):
        raise fields.fault("soft", "is above the hard limit")
    return limit


def _doors(fields: Fields) -> Doors:
    doors = Doors(
        environment=fields.items("environment", ENTRIES_MAX, _variable),
        output=fields.flag("output"),
        resize=fields.flag("resize"),
        signals=fields.rising("signals", FEW, lambda item: item.integer("item", low=1, high=64)),
        stdin=fields.flag("stdin"),
    )
    fields.close()
    return doors


def _variable(item: Fields) -> Variable:
    fields = item.table("item")
    variable = Variable(
        name=fields.text("name", pattern=_NAME, says="variable's name: letters, digits and _"),
        allow=fields.choice("allow", *GRAMMARS),
        length=fields.integer("bytes", high=1 << 17),
    )
    fields.close()
    return variable


def _mount(item: Fields) -> Mount:
    fields = item.table("item")
    fields.choice("kind", "tmpfs")
    mount = Mount(
        target=_target(fields),
        length=fields.integer("bytes", low=1, high=INTEGER_MAX),
        mode=fields.text("mode", pattern=r"[01][0-7]{3}", says="mode of four octal digits, sticky bit at most"),
        executable=fields.flag("executable"),
    )
    fields.close()
    return mount


def _file(item: Fields) -> SuppliedFile:
    fields = item.table("item")
    file = SuppliedFile(target=_target(fields), length=fields.integer("bytes", high=FILE_MAX))
    fields.close()
    return file


def _shared(item: Fields) -> HostFolder:
    fields = item.table("item")
    folder = HostFolder(
        target=_target(fields), length=fields.integer("bytes", high=INTEGER_MAX), write=fields.flag("write")
    )
    fields.close()
    if folder.write is not (folder.length == 0):
        raise fields.fault(
            "bytes", "must be 0 for a folder that may be written, which stays on the host, and only then"
        )
    return folder


def _sysctl(item: Fields) -> Sysctl:
    fields = item.table("item")
    one = Sysctl(
        name=fields.text("name", pattern=_SYSCTL, says="parameter of a container's own (net.*, fs.mqueue.*, IPC)"),
        value=fields.text("value", pattern=_SYSCTL_VALUE, says="printable ASCII of at most 256 characters"),
    )
    fields.close()
    return one


def check_value(variable: Variable, value: str) -> None:
    """ValueError unless the host may give the variable this value."""
    data = value.encode("utf-8", "surrogateescape")
    if len(data) > variable.length:
        raise ValueError(f"{variable.name} has {len(data)} bytes, the workload document allows {variable.length}")
    patterns = {
        "digits": r"[0-9]*",
        "hex": r"[0-9a-f]*",
        "word": r"[A-Za-z0-9._-]*",
        "path": r"/[A-Za-z0-9._/-]*",
        "line": r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*",
    }
    holds = re.fullmatch(patterns[variable.allow], value) is not None
    if not holds or (variable.allow == "path" and ".." in value.split("/")):
        raise ValueError(f"{variable.name} may only be {GRAMMARS[variable.allow]}, says the workload document")
