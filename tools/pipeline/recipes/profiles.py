# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/guest.toml and recipes/profiles/*.toml as frozen dataclasses, parsed once."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.recipes import policies
from tools.sev import id_block, policy
from tools.sev.id_block import Identity
from tools.sev.limits import CMDLINE_MAX, VCPUS_MAX, memory_mib
from tools.sev.modes import Console, Mode, ProfileKind

SCHEMA = 1
DEFAULT_PROFILE = "production"

_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_CPU = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_SERIES = r"[0-9]{1,3}\.[0-9]{1,3}"
_CMDLINE = rf"[ -~]{{1,{CMDLINE_MAX}}}"


class FirmwareTarget(StrEnum):
    """edk2's build target."""

    RELEASE = "RELEASE"
    DEBUG = "DEBUG"


class FirmwareSize(StrEnum):
    """edk2's FD_SIZE_* choices: size of the flash image, and so of what is measured at launch."""

    MIB_1 = "1MB"
    MIB_2 = "2MB"
    MIB_4 = "4MB"

    @property
    def bytes(self) -> int:
        """Size of the image in bytes."""
        return int(self.removesuffix("MB")) << 20


class Carry(StrEnum):
    """How the initramfs reaches the guest."""

    BESIDE = "beside"
    BUILTIN = "builtin"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """recipes/guest.toml: the machine, whatever the profile. Policies are bits, made from their names."""

    machine: str
    cpu: str
    vcpus: int
    memory: str
    mode: Mode
    reduced_phys_bits: int
    kernel_hashes: bool
    snp_policy: int
    identity: Identity
    sev_es_policy: int
    sev_es_legacy_vm_type: bool
    sev_policy: int
    agent_port: str
    rootfs_serial: str
    rng: bool


@dataclass(frozen=True, kw_only=True)
class KernelRecipe:
    """Which kernel, with which fragments, under which command line."""

    source: str
    series: str
    fragments: tuple[str, ...]
    cmdline: str


@dataclass(frozen=True, kw_only=True)
class FirmwareRecipe:
    """Which firmware build."""

    source: str
    target: FirmwareTarget
    size: FirmwareSize

    @property
    def name(self) -> str:
        """RELEASE-1MB: builds that agree in this are one build."""
        return f"{self.target}-{self.size}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """recipes/profiles/NAME.toml: one set of artifacts."""

    name: str
    kind: ProfileKind
    kernel: KernelRecipe
    firmware: FirmwareRecipe
    carry: Carry
    console: Console


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """All hand-written recipes."""

    guest: Guest
    profiles: tuple[Profile, ...]

    def profile(self, name: str) -> Profile:
        """The profile of that name; it exists because load() demands the default one."""
        return next(p for p in self.profiles if p.name == name)


def load(root: Path, *, sources: Collection[str]) -> Recipes:
    """Parse all recipes of a checkout; `sources` are the names that sources.lock pins.

    Raises UserError naming file and key.
    """
    guest = _guest(toml_reader.load(root / "recipes/guest.toml", shown_as="recipes/guest.toml"))
    profiles = []
    for path in sorted((root / "recipes/profiles").glob("*.toml")):
        shown = f"recipes/profiles/{path.name}"
        table = toml_reader.load(path, shown_as=shown)
        profiles.append(_profile(table, name=path.stem, root=root, sources=sources))
    series = {p.kernel.source: p.kernel.series for p in profiles}
    for found in profiles:
        # One unpacked tree a source: two series would patch it in turns.
        if series[found.kernel.source] != found.kernel.series:
            raise UserError(
                f"{found.kernel.source!r} is patched by {series[found.kernel.source]} in another profile",
                where=f"recipes/profiles/{found.name}.toml: kernel.series",
                hint="pin the other kernel as a source of its own",
            )
    _check_debug(guest, profiles)
    if DEFAULT_PROFILE not in [p.name for p in profiles]:
        raise UserError("no such file", where=f"recipes/profiles/{DEFAULT_PROFILE}.toml", hint="restore it")
    return Recipes(guest=guest, profiles=tuple(profiles))


def _schema(table: Table) -> None:
    table.integer("schema", low=SCHEMA, high=SCHEMA)


def _guest(table: Table) -> Guest:
    _schema(table)
    machine, sev, devices = table.table("machine"), table.table("sev"), table.table("devices")
    snp, sev_es, plain = sev.table("snp"), sev.table("sev-es"), sev.table("sev")
    if not sev.boolean("kernel-hashes"):
        raise sev.error(
            "kernel-hashes", "must be true", "without it neither kernel nor initramfs is measured at launch"
        )
    guest = Guest(
        machine=machine.string("type", pattern="q35", says="q35, the machine that the firmware is built for"),
        cpu=machine.string("cpu", pattern=_CPU, says="a QEMU CPU model"),
        vcpus=machine.integer("vcpus", low=1, high=VCPUS_MAX),
        memory=_memory(machine),
        mode=sev.choice("mode", Mode),
        reduced_phys_bits=sev.integer("reduced-phys-bits", low=1, high=63),
        kernel_hashes=True,
        snp_policy=policies.read(snp.table("policy"), policy.SNP),
        identity=_identity(snp.table("id-block")),
        sev_es_policy=policies.read(sev_es.table("policy"), policy.SEV_ES),
        sev_es_legacy_vm_type=sev_es.boolean("legacy-vm-type"),
        sev_policy=policies.read(plain.table("policy"), policy.SEV),
        agent_port=devices.string("agent-port", pattern=r"[a-z0-9.-]{1,60}", says="a port name"),
        rootfs_serial=devices.string("rootfs-serial", pattern=r"[a-z0-9]{1,20}", says="a disk serial"),
        rng=devices.boolean("rng"),
    )
    for part in (snp, sev_es, plain, machine, sev, devices, table):
        part.close()
    return guest


def _memory(machine: Table) -> str:
    text = machine.string("memory")
    try:
        memory_mib(text)
    except ValueError as error:
        raise machine.error("memory", str(error)) from None
    return text


def _identity(table: Table) -> Identity:
    identity = Identity(
        family_id=_id(table, "family-id"),
        image_id=_id(table, "image-id"),
        svn=table.integer("svn", low=0, high=id_block.SVN_MAX),
    )
    table.close()
    return identity


def _id(table: Table, key: str) -> bytes:
    try:
        return id_block.parse_id(table.string(key))
    except ValueError as error:
        raise table.error(key, str(error)) from None


def _check_debug(guest: Guest, profiles: Collection[Profile]) -> None:
    """A production guest that the host may debug would be one that the host can read."""
    production = [p.name for p in profiles if p.kind is ProfileKind.PRODUCTION]
    for mode, bits in (("snp", guest.snp_policy), ("sev-es", guest.sev_es_policy), ("sev", guest.sev_policy)):
        if production and policy.allows_debug(bits, policy.LAYOUTS[mode]):
            raise UserError(
                f"must be false for production profiles ({', '.join(production)})",
                where=f"recipes/guest.toml: sev.{mode}.policy.debug",
                hint="for one guest of the debug profile, change the bits in its runtime.toml",
            )


def _profile(table: Table, *, name: str, root: Path, sources: Collection[str]) -> Profile:
    _schema(table)
    if re.fullmatch(_NAME, name) is None:
        raise UserError(f"{name!r} is no profile name", where=table.file, hint="lower case, digits, . _ -")
    kernel, firmware = table.table("kernel"), table.table("firmware")
    initramfs, devices = table.table("initramfs"), table.table("devices")
    profile = Profile(
        name=name,
        kind=table.choice("kind", ProfileKind),
        kernel=KernelRecipe(
            source=kernel.string("source", pattern=_NAME, says="a name in recipes/sources.toml"),
            series=kernel.string("series", pattern=_SERIES, says="a kernel series such as 6.12"),
            fragments=kernel.strings("fragments"),
            cmdline=kernel.string("cmdline", pattern=_CMDLINE, says=f"1 to {CMDLINE_MAX} printable ASCII characters"),
        ),
        firmware=FirmwareRecipe(
            source=firmware.string("source", pattern=_NAME, says="a name in recipes/sources.toml"),
            target=firmware.choice("target", FirmwareTarget),
            size=firmware.choice("size", FirmwareSize),
        ),
        carry=initramfs.choice("carry", Carry),
        console=devices.choice("console", Console),
    )
    for part in (kernel, firmware, initramfs, devices, table):
        part.close()
    _check_kernel(profile.kernel, kernel, root=root)
    # The agent reads its profile from the measured command line, the launcher from runtime.toml.
    word = f"sev_agent.profile={profile.kind}"
    if profile.kernel.cmdline.split().count(word) != 1:
        raise kernel.error("cmdline", f"must hold {word!r} once", f"the profile's kind is {profile.kind}")
    for part in (kernel, firmware):
        name = part.string("source")
        if name not in sources:
            raise part.error("source", f"{name!r} is not pinned", f"pinned: {', '.join(sorted(sources))}")
    return profile


def _check_kernel(recipe: KernelRecipe, table: Table, *, root: Path) -> None:
    if not (root / "kernel-patches" / recipe.series / "series").is_file():
        raise table.error(
            "series", f"no kernel-patches/{recipe.series}/series", "create it, or use a series that has one"
        )
    seen: set[str] = set()
    for i, fragment in enumerate(recipe.fragments):
        key = f"fragments[{i}]"
        if fragment in seen:
            raise table.error(key, f"{fragment!r} stands twice")
        seen.add(fragment)
        # The name is checked before it is looked up: a file system refuses some names with an OSError.
        path = root / "recipes/kernel" / f"{fragment[:80]}.config"
        if re.fullmatch(_NAME, fragment) is None or not path.is_file():
            raise table.error(key, f"no recipes/kernel/{path.name}", _fragments(root))


def _fragments(root: Path) -> str:
    names = sorted(path.stem for path in (root / "recipes/kernel").glob("*.config"))
    return f"there are: {', '.join(names)}"
