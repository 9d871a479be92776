# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The QEMU command line, as a pure function of a plan."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tools.launcher.config.owner import NOTHING, Owner
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.sev.agent_abi import AGENT_PORT, ROOTFS_SERIAL
from tools.sev.modes import Mode

Option = tuple[str, ...]
Version = tuple[int, int, int]

# Since this version QEMU serves the kernel file unaltered as etc/boot/kernel.
NAMED_KERNEL_SINCE: Version = (10, 0, 0)
# sev-snp-guest and sev-guest's legacy-vm-type.
SEV_SINCE: Version = (9, 1, 0)
_VIRTIO = "iommu_platform=on,disable-legacy=on"


class Accel(StrEnum):
    """Who executes the guest."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, kw_only=True)
class QemuProgram:
    """A QEMU that was asked: where it is, its version, whether its seccomp sandbox works."""

    path: str
    version: Version
    sandbox: bool


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths as QEMU is given them (it runs in the launcher's private folder, so plain names will do)."""

    kernel: str
    initramfs: str | None
    firmware: str
    agent_socket: str = "agent.sock"
    rootfs: str | None = None
    hashes: str | None = None
    console_log: str | None = None
    firmware_log: str | None = None
    dh_cert: str | None = None
    session: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the command line depends on.

    `protection` None means an unprotected guest; then `hashes_addr` (guest-physical) and `files.hashes` say
    where the hashes table goes that QEMU itself injects into a protected one. `cbit` is the host CPU's
    C-bit position. `cmdline` is the kernel command line, byte for byte.
    """

    config: RuntimeConfig
    qemu: QemuProgram
    files: Files
    accel: Accel
    cmdline: str
    protection: Mode | None
    cbit: int | None = None
    hashes_addr: int | None = None
    owner: Owner = NOTHING


def build(plan: Plan) -> list[Option]:
    """The options in order, each with its value; the program itself is the first element."""
    return [
        (plan.qemu.path,),
        *_base(plan),
        *_machine(plan),
        *_boot(plan),
        *_devices(plan),
    ]


def argv(options: Sequence[Option]) -> list[str]:
    """Flatten the options for exec."""
    return [word for option in options for word in option]


def shell(options: Sequence[Option]) -> str:
    """The options for people and for sh: one a line."""
    return " \\\n  ".join(shlex.join(option) for option in options)


def _value(path: str) -> str:
    """Inside QEMU's key=value lists a comma is written twice."""
    return path.replace(",", ",,")


def _base(plan: Plan) -> list[Option]:
    options: list[Option] = [
        ("-nodefaults",),
        ("-no-user-config",),
        ("-no-reboot",),
        ("-display", "none"),
    ]
    if plan.qemu.sandbox:
        options.append(sandbox_option())
    return options


def sandbox_option() -> Option:
    """QEMU's seccomp filter with everything denied that a running guest does not need."""
    return ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


def _machine(plan: Plan) -> list[Option]:
    machine = plan.config.machine
    memory = f"{machine.memory_mib}M"
    cpu = machine.cpu
    if plan.protection is None:
        # Nothing is measured: take the CPU that the accelerator offers without a warning.
        cpu = "host" if plan.accel is Accel.KVM else "max"
    options: list[Option] = [
        ("-machine", _machine_value(plan)),
        ("-accel", str(plan.accel)),
        ("-cpu", cpu),
        ("-smp", str(machine.vcpus)),
        ("-m", memory),
    ]
    sev = plan.config.sev
    common = f"cbitpos={plan.cbit},reduced-phys-bits={sev.reduced_phys_bits}"
    match plan.protection:
        case Mode.SNP:
            snp = f"sev-snp-guest,id=snp0,{common},policy={sev.snp_policy:#x},kernel-hashes=on"
            options += [
                ("-object", f"memory-backend-memfd,id=ram1,size={memory},share=true,prealloc=false"),
                ("-object", snp + plan.owner.snp_properties),
            ]
        case Mode.SEV_ES | Mode.SEV:
            es = plan.protection is Mode.SEV_ES
            policy = sev.sev_es_policy if es else sev.sev_policy
            # Always pinned: the legacy VM type leaves other values in the VMSA, so another digest.
            legacy = "on" if sev.legacy_vm_type else "off"
            guest = f"sev-guest,id=sev0,{common},policy={policy:#x},kernel-hashes=on,legacy-vm-type={legacy}"
            options.append(("-object", guest + _session(plan.files)))
        case None:
            pass
    return options


def _session(files: Files) -> str:
    """The owner's certificate and session, whose files hold base64 (sev_read_file_base64 in sev.c)."""
    if files.dh_cert is None or files.session is None:
        return ""
    return f",dh-cert-file={_value(files.dh_cert)},session-file={_value(files.session)}"


def _machine_value(plan: Plan) -> str:
    value = f"{plan.config.machine.type},vmport=off"
    match plan.protection:
        case Mode.SNP:
            return f"{value},confidential-guest-support=snp0,memory-backend=ram1"
        case Mode.SEV_ES | Mode.SEV:
            return f"{value},confidential-guest-support=sev0"
        case None:
            return value


def _boot(plan: Plan) -> list[Option]:
    files = plan.files
    options: list[Option] = []
    if plan.protection in (Mode.SEV, Mode.SEV_ES):
        drive = f"if=pflash,format=raw,unit=0,readonly=on,file={_value(files.firmware)}"
        options.append(("-drive", drive))
    else:
        options.append(("-bios", files.firmware))
    options.append(("-kernel", files.kernel))
    if files.initramfs is not None:
        options.append(("-initrd", files.initramfs))
    options.append(("-append", plan.cmdline))
    if plan.protection is None and files.hashes is not None:
        # What QEMU writes itself when SEV is on; the firmware boots nothing without it.
        loader = f"loader,file={_value(files.hashes)},addr={plan.hashes_addr:#x},force-raw=on"
        options.append(("-device", loader))
        if plan.qemu.version < NAMED_KERNEL_SINCE:
            # Without SEV older QEMU edits the setup header of the kernel that it serves, so its hash would
            # differ. The firmware prefers this named blob, the unaltered file.
            options.append(("-fw_cfg", f"name=etc/boot/kernel,file={_value(files.kernel)}"))
    return options


def _devices(plan: Plan) -> list[Option]:
    devices, files = plan.config.devices, plan.files
    options: list[Option] = [
        ("-device", f"virtio-serial-pci,id=serial0,{_VIRTIO}"),
        ("-chardev", f"socket,id=agent,path={_value(files.agent_socket)}"),
        ("-device", f"virtserialport,bus=serial0.0,chardev=agent,name={AGENT_PORT}"),
    ]
    if files.rootfs is not None:
        image = f"driver=raw,node-name=rootfs,read-only=on,file.driver=file,file.filename={_value(files.rootfs)}"
        options += [
            ("-blockdev", image),
            ("-device", f"virtio-blk-pci,drive=rootfs,serial={ROOTFS_SERIAL},{_VIRTIO}"),
        ]
    if devices.rng:
        options += [
            ("-object", "rng-random,id=rng0,filename=/dev/urandom"),
            ("-device", f"virtio-rng-pci,rng=rng0,{_VIRTIO}"),
        ]
    if files.console_log is not None:
        options += [
            ("-chardev", f"file,id=console,path={_value(files.console_log)}"),
            ("-device", "isa-serial,chardev=console"),
        ]
    if files.firmware_log is not None:
        options += [
            ("-chardev", f"file,id=firmware,path={_value(files.firmware_log)}"),
            ("-device", "isa-debugcon,iobase=0x402,chardev=firmware"),
        ]
    return options
