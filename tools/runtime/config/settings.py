# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-runtime.toml: what this host starts containers with. docs/runtime.md documents every key.

Looked for beside the program, then in /etc; `--config` names another, so one program can be several runtimes.
"""

from dataclasses import dataclass
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
_ETC = Path("/etc", FILE)
_CACHE, _RUN = "/var/lib/sev-runtime", "/run/sev-runtime-guests"
_TIMEOUT_MAX = 86_400
_OVERHEAD_MAX = 1 << 20


class Protection(StrEnum):
    """What a container is: encrypted and closed; closed only; neither."""

    PROTECTED = "protected"
    ENFORCE = "enforce"
    UNPROTECTED = "unprotected"


class _Table(toml.Table):
    fault = UserError
    no_file_hint = "give --config, or put sev-runtime.toml beside the program or into /etc"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of it; paths are absolute. `timeout` in seconds, None: by the accelerator.

    `overhead_mib`: what a container's control group may take beside the guest's memory.
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
    memory_mib: int = oci.MEMORY_MIB
    vcpus: int = oci.VCPUS
    overhead_mib: int = 512
    timeout: float | None = None
    annotations: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the host may do in containers what engines' users expect: exec of any command."""
        return self.protection is Protection.UNPROTECTED

    @property
    def oci(self) -> oci.Settings:
        """What the translation of a container is told."""
        return oci.Settings(
            openness=oci.Openness.OPEN if self.open else oci.Openness.CLOSED,
            memory_mib=self.memory_mib,
            vcpus=self.vcpus,
        )

    @property
    def encrypted(self) -> bool:
        """Whether the processor protects containers."""
        return self.protection is Protection.PROTECTED


def find(given: str | None) -> Path | None:
    """The file that counts; None: there is none, and everything is as built in."""
    if given is not None:
        return Path(given).absolute()
    return next((path for path in (_beside() / FILE, _ETC) if path.is_file()), None)


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
            network_artifacts=beside / "runtime-network.toml",
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
        network_artifacts=file("network-artifacts", beside / "runtime-network.toml"),
        mkfs=file("mkfs", beside / MKFS_NAME),
        cache=file("cache", Path(_CACHE)),
        run=file("run", Path(_RUN)),
        qemu=str(file("qemu", Path())) if table.has("qemu") else None,
        accel=table.choice("accel", Accel) if table.has("accel") else None,
        mode=table.choice("mode", Mode) if table.has("mode") else None,
        memory_mib=_memory(table, "memory"),
        vcpus=table.integer("vcpus", low=1, high=VCPUS_MAX) if table.has("vcpus") else oci.VCPUS,
        overhead_mib=table.integer("memory-overhead", low=1, high=_OVERHEAD_MAX)
        if table.has("memory-overhead")
        else 512,
        timeout=table.integer("timeout", low=1, high=_TIMEOUT_MAX) if table.has("timeout") else None,
        annotations=table.strings("annotations", allow_empty=True) if table.has("annotations") else (),
    )
    table.close()
    return settings


def _memory(table: _Table, key: str) -> int:
    if not table.has(key):
        return oci.MEMORY_MIB
    try:
        return memory_mib(table.string(key))
    except ValueError as error:
        raise table.error(key, str(error)) from None
