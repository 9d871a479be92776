# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-runtime.toml: what this host starts containers with. docs/runtime.md documents every key.

Looked for beside the program, then in /etc; `--config` names another, so one program can be several runtimes.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.guest.spec import Accel
from tools.launcher.oci import settings as oci
from tools.launcher.options.arguments import own_file
from tools.sev import toml
from tools.sev.formats import MKFS_NAME, RUNTIME_NAME
from tools.sev.limits import VCPUS_MAX, memory_mib
from tools.sev.modes import Mode

FILE = "sev-runtime.toml"
SCHEMA = 1
ETC = Path("/etc", FILE)
_CACHE, _RUN = "/var/lib/sev-runtime", "/run/sev-runtime-guests"
_TIMEOUT_MAX = 86_400
NETWORK = "runtime-network.toml"
QEMU_OPTION = f'qemu = "PATH" in {FILE}'
"""How another QEMU is given."""
OVERHEAD_MIB = 512
"""What QEMU and the monitor may take beside the guest's memory: docs/runtime.md has the measurement."""
ALLOWED = ("exec", "protection", "reports", "host-reports", "end-on-refusal", "timeout")
"""What annotations can change, where the configuration lets them."""


class Protection(StrEnum):
    """What a container is: encrypted and closed; closed only; neither."""

    PROTECTED = "protected"
    ENFORCE = "enforce"
    UNPROTECTED = "unprotected"


class Reports(StrEnum):
    """How a container's programs get attestation reports: tools/sev/workload/document.py."""

    NONE = "none"
    SOCKET = "socket"
    RAW = "raw"


class _Table(toml.Table):
    fault = UserError
    no_file_hint = "give --config, or put sev-runtime.toml beside the program or into /etc"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of it; paths are absolute. `timeout` in seconds, None: by the accelerator.

    `overhead_mib`: what a container's control group may take beside the guest's memory. `annotations`: names, without
    their prefix, of those that may change this for a container (annotations.py).
    """

    path: Path | None
    protection: Protection = Protection.PROTECTED
    artifacts: Path
    network_artifacts: Path
    mkfs: Path
    cache: Path = Path(_CACHE)
    run: Path = Path(_RUN)
    qemu: str | None = None
    accel: Accel | None = None
    mode: Mode | None = None
    overhead_mib: int = OVERHEAD_MIB
    timeout: float | None = None
    annotations: tuple[str, ...] = ()
    container: oci.Settings = field(default_factory=oci.Settings)

    @property
    def encrypted(self) -> bool:
        """Whether the processor protects containers."""
        return self.protection is Protection.PROTECTED

    def translation(self) -> oci.Settings:
        """What the translation of a container is told: unprotected ones are open, as engines' users expect."""
        opened = self.protection is Protection.UNPROTECTED
        return replace(self.container, openness=oci.Openness.OPEN if opened else oci.Openness.CLOSED)


def find(given: str | None) -> Path | None:
    """The file that counts; None: there is none, and everything is as built in."""
    if given is not None:
        return Path(given).absolute()
    return next((path for path in (_beside() / FILE, ETC) if path.is_file()), None)


def _beside() -> Path:
    """The folder of this program's one file, or ./out when it runs from a checkout."""
    file = own_file()
    return Path("out").absolute() if file is None else file.resolve().parent


def load(given: str | None) -> Settings:
    """Read and check; UserError names file and key."""
    beside = _beside()
    path = find(given)
    if path is None:
        return Settings(
            path=None,
            artifacts=beside / RUNTIME_NAME,
            network_artifacts=beside / NETWORK,
            mkfs=beside / MKFS_NAME,
        )
    table = _Table.load(path, shown_as=str(path))
    schema = table.integer("schema", low=1, high=1 << 31)
    if schema != SCHEMA:
        raise table.error("schema", f"is {schema}, this sev-runtime reads {SCHEMA}")
    folder = path.resolve().parent

    def file(key: str, default: Path) -> Path:
        return folder / table.string(key) if table.has(key) else default

    settings = Settings(
        path=path,
        protection=table.choice("protection", Protection) if table.has("protection") else Protection.PROTECTED,
        artifacts=file("artifacts", beside / RUNTIME_NAME),
        network_artifacts=file("network-artifacts", beside / NETWORK),
        mkfs=file("mkfs", beside / MKFS_NAME),
        cache=file("cache", Path(_CACHE)),
        run=file("run", Path(_RUN)),
        qemu=str(file("qemu", Path())) if table.has("qemu") else None,
        accel=table.choice("accel", Accel) if table.has("accel") else None,
        mode=table.choice("mode", Mode) if table.has("mode") else None,
        overhead_mib=_size(table, "memory-overhead", OVERHEAD_MIB),
        timeout=table.integer("timeout", low=1, high=_TIMEOUT_MAX) if table.has("timeout") else None,
        annotations=_annotations(table),
        container=_container(table),
    )
    table.close()
    return settings


def _container(table: _Table) -> oci.Settings:
    """What of it says what a container opens to its host, and what its guest has."""
    writable = table.strings("writable", allow_empty=True) if table.has("writable") else ()
    return oci.Settings(
        exec=tuple(_command(one) for one in table.tables("exec", allow_empty=True)) if table.has("exec") else (),
        reports=table.choice("reports", Reports) if table.has("reports") else Reports.NONE,
        host_reports=table.has("host-reports") and table.boolean("host-reports"),
        end_on_refusal=table.has("end-on-refusal") and table.boolean("end-on-refusal"),
        writable=writable,
        memory_mib=_memory(table),
        vcpus=table.integer("vcpus", low=1, high=VCPUS_MAX) if table.has("vcpus") else oci.VCPUS,
        folder_bytes=_size(table, "folder-size", oci.FOLDER_BYTES >> 20) << 20,
    )


def _command(table: _Table) -> oci.Command:
    command = oci.Command(
        argv=table.strings("command"),
        count=table.integer("count", low=1, high=oci.Command.count) if table.has("count") else oci.Command.count,
        stdin=table.has("stdin") and table.boolean("stdin"),
        terminal=table.has("terminal") and table.boolean("terminal"),
    )
    table.close()
    return command


def _annotations(table: _Table) -> tuple[str, ...]:
    names = table.strings("annotations", allow_empty=True) if table.has("annotations") else ()
    for name in names:
        if name not in ALLOWED:
            raise table.error("annotations", f"{name[:40]!r} is none of: {', '.join(ALLOWED)}")
    return names


def _memory(table: _Table) -> int:
    if not table.has("memory"):
        return oci.MEMORY_MIB
    try:
        return memory_mib(table.string("memory"))
    except ValueError as error:
        raise table.error("memory", str(error)) from None


def _size(table: _Table, key: str, default: int) -> int:
    """A size as in "64M" or "1G", in MiB."""
    if not table.has(key):
        return default
    text = table.string(key, pattern="[1-9][0-9]{0,5}[MG]", says='a size as in "64M" or "1G"')
    return int(text[:-1]) << (10 if text.endswith("G") else 0)
