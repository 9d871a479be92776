# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What will be started, as plain values: nothing here knows of a command line."""

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.config import artifacts, owner
from tools.launcher.config.owner import NOTHING, Owner, Wish
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.guest import binding as bindings
from tools.launcher.guest.binding import Binding, Unbound
from tools.launcher.host.facts import HostFacts, obstacles
from tools.launcher.host.qemu_program import QemuProgram, obstacle
from tools.launcher.measure import digest_file
from tools.sev.footer import Footer
from tools.sev.hashes_table import hashes_table
from tools.sev.modes import Mode
from tools.sev.workload.document import Verity


class Accel(StrEnum):
    """Who executes the guest."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a caller asks for; None means: as the config says. `config` is the path of a runtime.toml.

    `binding` must be said before anything can start; None is for who only looks at the config. `folders`: of each that
    the workload document has, an archive (docs/workload.md), or the folder itself where it is shared.
    """

    config: Path
    binding: Binding | None = None
    mode: Mode | None = None
    unprotected: bool = False
    cpus: int | None = None
    memory_mib: int | None = None
    append: str = ""
    rootfs: Path | None = None
    verity: str | None = None
    owner: Wish = field(default_factory=Wish)
    folders: tuple[Path, ...] = ()

    def configure(self) -> RuntimeConfig:
        """The config with what is asked for laid over it; UserError names file and key."""
        config = load_config(self.config)
        machine = config.machine
        if self.cpus is not None:
            machine = dataclasses.replace(machine, vcpus=self.cpus)
        if self.memory_mib is not None:
            machine = dataclasses.replace(machine, memory_mib=self.memory_mib)
        sev = config.sev if self.mode is None else dataclasses.replace(config.sev, mode=self.mode)
        return dataclasses.replace(config, machine=machine, sev=sev)

    def kernel_cmdline(self, config: RuntimeConfig) -> str:
        """The command line that is launched."""
        return bindings.compose(
            config, append=self.append, binding=self.binding, verity=self.verity, rootfs=self.rootfs
        )

    @property
    def demands_verity(self) -> bool:
        """Whether the root must be behind dm-verity."""
        if self.binding is None or isinstance(self.binding, Unbound):
            return self.verity is not None
        return isinstance(self.binding.root, Verity)


@dataclass(frozen=True, kw_only=True)
class Nic:
    """An Ethernet interface of the guest: frames go through `tap`, the descriptor of a tap device with IFF_VNET_HDR.

    `vhost`: a descriptor of /dev/vhost-net, so that the host's kernel carries the frames and not QEMU. `mtu` in bytes.
    """

    mac: bytes
    mtu: int
    tap: int
    vhost: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What QEMU inherits for it."""
        return (self.tap,) if self.vhost is None else (self.tap, self.vhost)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A guest, whole and checked, before an accelerator is chosen.

    `protection` None: unprotected; else `cbit` is the host CPU's C-bit position. `cmdline` is the kernel command
    line, byte for byte. `verity`: the agent must say that the root is behind dm-verity. `network`: its interfaces, in
    the order in which the guest finds them; none: it has no such device. `folders` as in Wanted.
    """

    config: RuntimeConfig
    qemu: QemuProgram
    firmware: Footer
    protection: Mode | None
    cbit: int | None
    cmdline: str
    binding: Binding
    owner: Owner = NOTHING
    verity: bool = False
    network: tuple[Nic, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def shared(self) -> tuple[bool, ...]:
        """Of each folder whether it stays here, and is written to by the guest."""
        if isinstance(self.binding, Unbound):
            return ()
        return tuple(folder.write for folder in self.binding.folders)

    @property
    def hashes(self) -> bytes:
        """The hashes table of this guest's artifacts and command line."""
        config = self.config
        initrd = None if config.initramfs is None else bytes.fromhex(config.initramfs.sha256)
        kernel = bytes.fromhex(config.kernel.sha256)
        return hashes_table(kernel_sha256=kernel, initrd_sha256=initrd, cmdline=self.cmdline)


def reasons_against(facts: HostFacts, mode: Mode, qemu: QemuProgram | None, firmware: Footer) -> list[str]:
    """Everything that stands against a protected guest here, as reasons for people."""
    reasons = obstacles(facts, mode)
    if qemu is not None:
        reasons += obstacle(qemu, mode)
    if mode is Mode.SNP and firmware.snp_missing:
        reasons.append(f"the firmware's SEV metadata lacks {', '.join(firmware.snp_missing)}")
    if mode is Mode.SEV_ES and firmware.sev_es_reset is None:
        reasons.append("the firmware has no SEV-ES reset block")
    return reasons


def resolve(wanted: Wanted, config: RuntimeConfig, *, qemu: QemuProgram, cbit: int | None) -> Spec:
    """Make the spec of what is wanted. `config` is wanted.configure(); `cbit` matters to a protected guest.

    UserError for what is wrong with it, whatever the host: check that with reasons_against().
    """
    firmware = artifacts.read_firmware(config)
    cmdline = wanted.kernel_cmdline(config)
    assert wanted.binding is not None
    _check_folders(wanted.binding, wanted.folders)
    protection = None if wanted.unprotected else config.sev.mode
    return Spec(
        config=config,
        qemu=qemu,
        firmware=firmware,
        protection=protection,
        cbit=None if protection is None else cbit,
        cmdline=cmdline,
        binding=wanted.binding,
        owner=owner.read(wanted.owner, config, expected_digest=_expected_digest(wanted, config, cmdline)),
        verity=wanted.demands_verity,
        folders=wanted.folders,
    )


def _check_folders(binding: Binding, given: tuple[Path, ...]) -> None:
    """UserError unless each folder of the document is given, and is of its kind; the agent would wait for it."""
    folders = () if isinstance(binding, Unbound) else binding.folders
    if len(given) != len(folders):
        raise UserError(f"the workload document has {len(folders)} folders of the host's, {len(given)} are given")
    for folder, path in zip(folders, given, strict=True):
        if not (path.is_dir() if folder.write else path.is_file()):
            what = "a folder, to be shared with the guest" if folder.write else "a file: an archive of the folder"
            raise UserError(f"is not {what}", where=f"{folder.target}={path}")


def _expected_digest(wanted: Wanted, config: RuntimeConfig, cmdline: str) -> bytes | None:
    """The launch digest of this very guest where an ID block will be compared with it; None without one."""
    if wanted.owner.id_block is None or config.sev.mode is not Mode.SNP:
        return None
    own = digest_file.launch_digests(config, cmdline=cmdline)
    return bytes.fromhex(digest_file.configured(config, own)[Mode.SNP])
