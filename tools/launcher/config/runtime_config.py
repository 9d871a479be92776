# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The runtime config (runtime.toml, schema 3): parsed once, checked whole, frozen.

docs/runtime-config.md documents every key; a key that is not there is an error here.
"""

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from tools.launcher.base.errors import UserError
from tools.launcher.base.units import parse_memory
from tools.launcher.config import policy

SCHEMA = 3
CONFIG_NAME = "runtime.toml"
_CONFIG_MAX = 1 << 20
# COMMAND_LINE_SIZE of x86 Linux is 2048 with the trailing NUL (arch/x86/include/asm/setup.h).
CMDLINE_MAX = 2047
VCPUS_MAX = 255
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA384 = re.compile(r"[0-9a-f]{96}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CMDLINE = re.compile(r"[\x20-\x7e]*")
_ARTIFACT_MAX = 256 << 20
_E = TypeVar("_E", bound=StrEnum)


class Profile(StrEnum):
    """What the artifacts were built for."""

    PRODUCTION = "production"
    DEBUG = "debug"


class Mode(StrEnum):
    """The protection that a guest is started under."""

    SNP = "snp"
    SEV_ES = "sev-es"
    SEV = "sev"


class Console(StrEnum):
    """Whether the guest gets a serial port (output only)."""

    NONE = "none"
    SERIAL = "serial"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file beside the config, with the size in bytes and the SHA-256 that it must have."""

    role: str
    file: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The virtual machine: QEMU's machine type and CPU model, vCPU count, RAM in MiB."""

    type: str
    cpu: str
    vcpus: int
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Sev:
    """Protection mode and guest policies (SEV API 3.0 chapter 3; SNP ABI 4.3)."""

    mode: Mode
    snp_policy: int
    sev_es_policy: int
    legacy_vm_type: bool
    sev_policy: int
    reduced_phys_bits: int


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices that a guest may have or not."""

    console: Console
    rng: bool


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """The whole of runtime.toml; `path` is where it was read from.

    `launch_digests` are those of the file as it stands, were it started in each mode, in hexadecimal.
    """

    path: Path
    profile: Profile
    version: str
    kernel: Artifact
    initramfs: Artifact | None
    firmware: Artifact
    machine: Machine
    cmdline: str
    sev: Sev
    devices: Devices
    launch_digests: dict[Mode, str]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every artifact that a launch uses, in a fixed order."""
        return tuple(a for a in (self.kernel, self.initramfs, self.firmware) if a is not None)


class _Table:
    """One TOML table: every key is taken exactly once, the rest are unknown."""

    def __init__(self, data: dict[str, Any], *, path: Path, name: str) -> None:
        self._data = dict(data)
        self._path = path
        self._name = name

    def fail(self, key: str, what: str, *, hint: str | None = None) -> UserError:
        dotted = f"{self._name}.{key}" if self._name else key
        return UserError(what, where=f"{self._path}: {dotted}", hint=hint)

    def _take(self, key: str, kind: type, name: str) -> Any:
        if key not in self._data:
            raise self.fail(key, "missing")
        value = self._data.pop(key)
        # bool is a subclass of int: `vcpus = true` must not pass for 1.
        if type(value) is not kind:
            raise self.fail(key, f"must be {name}, is {value!r}")
        return value

    def has(self, key: str) -> bool:
        return key in self._data

    def table(self, key: str) -> "_Table":
        data: dict[str, Any] = self._take(key, dict, "a table")
        return _Table(data, path=self._path, name=f"{self._name}.{key}" if self._name else key)

    def text(self, key: str, *, pattern: re.Pattern[str], meaning: str) -> str:
        value: str = self._take(key, str, "a string")
        if pattern.fullmatch(value) is None:
            raise self.fail(key, f"{value[:80]!r} is not {meaning}")
        return value

    def choice(self, key: str, kind: type[_E]) -> _E:
        value: str = self._take(key, str, "a string")
        allowed = [str(member) for member in kind]
        if value not in allowed:
            raise self.fail(key, f"{value[:80]!r} is none of {', '.join(allowed)}")
        return kind(value)

    def integer(self, key: str, *, low: int, high: int) -> int:
        value: int = self._take(key, int, "an integer")
        if not low <= value <= high:
            raise self.fail(key, f"{value} is outside {low}…{high}")
        return value

    def boolean(self, key: str) -> bool:
        value: bool = self._take(key, bool, "true or false")
        return value

    def end(self) -> None:
        for key in sorted(self._data):
            raise self.fail(key, "unknown key", hint=f"docs/runtime-config.md lists those of schema {SCHEMA}")


def load_config(path: Path) -> RuntimeConfig:
    """Read and check `path`; UserError names file and key."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_CONFIG_MAX + 1)
    except OSError as error:
        hint = "give --config, or build the artifacts with ./doit build" if not path.exists() else None
        raise UserError(error.strerror or "cannot be read", where=str(path), hint=hint) from None
    if len(raw) > _CONFIG_MAX:
        raise UserError("larger than 1 MiB, so no runtime config", where=str(path))
    try:
        data = tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=str(path)) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"not TOML: {error}", where=str(path)) from None
    return parse_config(data, path=path)


def parse_config(data: dict[str, Any], *, path: Path) -> RuntimeConfig:
    """Check a parsed TOML document against schema 3; `path` is only for messages and file lookups."""
    top = _Table(data, path=path, name="")
    schema = top.integer("schema", low=1, high=1 << 31)
    if schema != SCHEMA:
        raise top.fail(
            "schema",
            f"is {schema}, this sev-launch reads {SCHEMA}",
            hint="use the sev-launch that was built beside it",
        )
    profile = top.choice("profile", Profile)
    version = top.text("version", pattern=_WORD, meaning="a version")
    kernel, initramfs, firmware = _artifacts(top.table("artifacts"))
    config = RuntimeConfig(
        path=path,
        profile=profile,
        version=version,
        kernel=kernel,
        initramfs=initramfs,
        firmware=firmware,
        machine=_machine(top.table("machine")),
        cmdline=_cmdline(top.table("kernel")),
        sev=_sev(top.table("sev"), profile=profile),
        devices=_devices(top.table("devices")),
        launch_digests=_launch_digests(top.table("launch-digest")),
    )
    top.end()
    return config


def _artifacts(table: _Table) -> tuple[Artifact, Artifact | None, Artifact]:
    kernel = _artifact(table, "kernel")
    initramfs = _artifact(table, "initramfs") if table.has("initramfs") else None
    firmware = _artifact(table, "firmware")
    table.end()
    names = [a.file for a in (kernel, initramfs, firmware) if a is not None]
    if len(set(names)) != len(names):
        raise table.fail("firmware", "two artifacts have the same file name")
    return kernel, initramfs, firmware


def _artifact(parent: _Table, role: str) -> Artifact:
    table = parent.table(role)
    artifact = Artifact(
        role=role,
        file=table.text("file", pattern=_FILE_NAME, meaning="a plain file name beside the config"),
        sha256=table.text("sha256", pattern=_SHA256, meaning="64 lower-case hexadecimal digits"),
        size=table.integer("size", low=1, high=_ARTIFACT_MAX),
    )
    table.end()
    return artifact


def _machine(table: _Table) -> Machine:
    memory = table.text("memory", pattern=re.compile(r".{1,20}"), meaning="a memory size")
    try:
        memory_mib = parse_memory(memory)
    except ValueError as error:
        raise table.fail("memory", str(error)) from None
    machine = Machine(
        type=table.text("type", pattern=re.compile(r"(pc-)?q35(-[0-9]+\.[0-9]+)?"), meaning="a q35 machine type"),
        cpu=table.text("cpu", pattern=_WORD, meaning="a QEMU CPU model"),
        vcpus=table.integer("vcpus", low=1, high=VCPUS_MAX),
        memory_mib=memory_mib,
    )
    table.end()
    return machine


def _cmdline(table: _Table) -> str:
    text = table.text("cmdline", pattern=_CMDLINE, meaning="a line of printable ASCII")
    if len(text) > CMDLINE_MAX:
        raise table.fail("cmdline", f"has {len(text)} bytes, the kernel takes {CMDLINE_MAX}")
    table.end()
    return text


def _sev(table: _Table, *, profile: Profile) -> Sev:
    mode = table.choice("mode", Mode)
    reduced = table.integer("reduced-phys-bits", low=1, high=63)
    snp, es, legacy = table.table("snp"), table.table("sev-es"), table.table("sev")
    snp_policy = _policy(snp, policy.SNP, profile=profile)
    es_policy = _policy(es, policy.SEV_ES, profile=profile)
    legacy_vm_type = es.boolean("legacy-vm-type")
    sev_policy = _policy(legacy, policy.SEV, profile=profile)
    for each in (snp, es, legacy, table):
        each.end()
    return Sev(
        mode=mode,
        snp_policy=snp_policy,
        sev_es_policy=es_policy,
        legacy_vm_type=legacy_vm_type,
        sev_policy=sev_policy,
        reduced_phys_bits=reduced,
    )


def _policy(table: _Table, layout: policy.Layout, *, profile: Profile) -> int:
    # TOML's integers end at 63 bits.
    bits = table.integer("policy", low=0, high=(1 << min(layout.width, 63)) - 1)
    for reason in policy.wrong(bits, layout):
        raise table.fail("policy", f"{bits:#x} {reason}")
    if profile is Profile.PRODUCTION and policy.allows_debug(bits, layout):
        flag = layout.flag("debug")
        assert flag is not None
        has = "has" if flag.when_set else "lacks"
        raise table.fail("policy", f"{bits:#x} {has} bit {flag.bit} ({flag.spec}), not for the production profile")
    return bits


def _devices(table: _Table) -> Devices:
    devices = Devices(
        console=table.choice("console", Console),
        rng=table.boolean("rng"),
    )
    table.end()
    return devices


def _launch_digests(table: _Table) -> dict[Mode, str]:
    digests = {}
    for mode in Mode:
        # SNP's digest is a SHA-384, that of SEV and SEV-ES a SHA-256.
        pattern, length = (_SHA384, 96) if mode is Mode.SNP else (_SHA256, 64)
        digests[mode] = table.text(str(mode), pattern=pattern, meaning=f"{length} lower-case hexadecimal digits")
    table.end()
    return digests
