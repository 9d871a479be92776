# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The runtime config (runtime.toml): parsed once, checked whole, frozen.

docs/runtime-config.md documents every key; a key that is not there is an error here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError
from tools.sev import policy, toml
from tools.sev.formats import RUNTIME_SCHEMA
from tools.sev.limits import ARTIFACT_MAX, CMDLINE_MAX, VCPUS_MAX, memory_mib
from tools.sev.modes import Console, Mode, ProfileKind

_FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_CMDLINE = r"[\x20-\x7e]*"
_Q35 = r"(pc-)?q35(-[0-9]+\.[0-9]+)?"


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

    def policy(self, mode: Mode) -> int:
        """The guest policy of that mode."""
        return {Mode.SNP: self.snp_policy, Mode.SEV_ES: self.sev_es_policy, Mode.SEV: self.sev_policy}[mode]


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What the guest has beside disk and agent's port: a console, a source of random numbers."""

    console: Console
    rng: bool


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """The whole of runtime.toml; `path` is where it was read from.

    `launch_digests` are those of the file as it stands, were it started in each mode, in hexadecimal. `qemu` is the
    program that starts guests where nothing else is said; None: the host's.
    """

    path: Path
    profile: ProfileKind
    version: str
    kernel: Artifact
    initramfs: Artifact | None
    firmware: Artifact
    machine: Machine
    cmdline: str
    sev: Sev
    devices: Devices
    launch_digests: dict[Mode, str]
    qemu: Artifact | None = None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every artifact that a guest is made of, in a fixed order."""
        return tuple(a for a in (self.kernel, self.initramfs, self.firmware) if a is not None)


class _Table(toml.Table):
    fault = UserError
    no_file_hint = "give --config, or build the artifacts with ./doit build"


def load_config(path: Path) -> RuntimeConfig:
    """Read and check `path`; UserError names file and key."""
    return _parse(_Table.load(path, shown_as=str(path)), path=path)


def parse_config(data: dict[str, Any], *, path: Path) -> RuntimeConfig:
    """Check a parsed TOML document; `path` is only for messages and file lookups."""
    return _parse(_Table(data, file=str(path)), path=path)


def _parse(top: _Table, *, path: Path) -> RuntimeConfig:
    schema = top.integer("schema", low=1, high=1 << 31)
    if schema != RUNTIME_SCHEMA:
        raise top.error(
            "schema",
            f"is {schema}, this sev-launch reads {RUNTIME_SCHEMA}",
            "use the sev-launch that was built beside it",
        )
    profile = top.choice("profile", ProfileKind)
    version = top.string("version", pattern=_WORD, says="a version")
    kernel, initramfs, firmware, qemu = _artifacts(top.table("artifacts"))
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
        qemu=qemu,
    )
    top.close()
    return config


def _artifacts(table: _Table) -> tuple[Artifact, Artifact | None, Artifact, Artifact | None]:
    kernel = _artifact(table, "kernel")
    initramfs = _artifact(table, "initramfs") if table.has("initramfs") else None
    firmware = _artifact(table, "firmware")
    qemu = _artifact(table, "qemu") if table.has("qemu") else None
    table.close()
    names = [a.file for a in (kernel, initramfs, firmware, qemu) if a is not None]
    if len(set(names)) != len(names):
        raise table.error("firmware", "two artifacts have the same file name")
    return kernel, initramfs, firmware, qemu


def _artifact(parent: _Table, role: str) -> Artifact:
    table = parent.table(role)
    artifact = Artifact(
        role=role,
        file=table.string("file", pattern=_FILE_NAME, says="a plain file name beside the config"),
        sha256=table.sha256("sha256"),
        size=table.integer("size", low=1, high=ARTIFACT_MAX),
    )
    table.close()
    return artifact


def _machine(table: _Table) -> Machine:
    try:
        memory = memory_mib(table.string("memory"))
    except ValueError as error:
        raise table.error("memory", str(error)) from None
    machine = Machine(
        type=table.string("type", pattern=_Q35, says="a q35 machine type"),
        cpu=table.string("cpu", pattern=_WORD, says="a QEMU CPU model"),
        vcpus=table.integer("vcpus", low=1, high=VCPUS_MAX),
        memory_mib=memory,
    )
    table.close()
    return machine


def _cmdline(table: _Table) -> str:
    text = table.string("cmdline", pattern=_CMDLINE, says="a line of printable ASCII", allow_empty=True)
    if len(text) > CMDLINE_MAX:
        raise table.error("cmdline", f"has {len(text)} bytes, the kernel takes {CMDLINE_MAX}")
    table.close()
    return text


def _sev(table: _Table, *, profile: ProfileKind) -> Sev:
    mode = table.choice("mode", Mode)
    reduced = table.integer("reduced-phys-bits", low=1, high=63)
    snp, es, legacy = table.table("snp"), table.table("sev-es"), table.table("sev")
    snp_policy = _policy(snp, policy.SNP, profile=profile)
    es_policy = _policy(es, policy.SEV_ES, profile=profile)
    legacy_vm_type = es.boolean("legacy-vm-type")
    sev_policy = _policy(legacy, policy.SEV, profile=profile)
    for each in (snp, es, legacy, table):
        each.close()
    return Sev(
        mode=mode,
        snp_policy=snp_policy,
        sev_es_policy=es_policy,
        legacy_vm_type=legacy_vm_type,
        sev_policy=sev_policy,
        reduced_phys_bits=reduced,
    )


def _policy(table: _Table, layout: policy.Layout, *, profile: ProfileKind) -> int:
    # TOML's integers end at 63 bits.
    bits = table.integer("policy", low=0, high=(1 << min(layout.width, 63)) - 1)
    for reason in policy.wrong(bits, layout):
        raise table.error("policy", f"{bits:#x} {reason}")
    if profile is ProfileKind.PRODUCTION and policy.allows_debug(bits, layout):
        flag = layout.flag("debug")
        assert flag is not None
        has = "has" if flag.when_set else "lacks"
        raise table.error("policy", f"{bits:#x} {has} bit {flag.bit} ({flag.spec}), not for the production profile")
    return bits


def _devices(table: _Table) -> Devices:
    devices = Devices(
        console=table.choice("console", Console),
        rng=table.boolean("rng"),
    )
    table.close()
    return devices


def _launch_digests(table: _Table) -> dict[Mode, str]:
    digests = {mode: table.hexadecimal(str(mode), digits=2 * mode.digest_size, says="a launch digest") for mode in Mode}
    table.close()
    return digests
