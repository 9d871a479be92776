# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The QEMU command line, as a pure function of a spec."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tools.launcher.guest.spec import Accel, Nic, Spec
from tools.launcher.host.qemu_program import SANDBOX, Version
from tools.sev.agent.agent_abi import AGENT_PORT, FOLDER, ROOTFS_SERIAL
from tools.sev.modes import Mode

Option = tuple[str, ...]

# Since this version QEMU serves the kernel file unaltered as etc/boot/kernel.
NAMED_KERNEL_SINCE: Version = (10, 0, 0)
_VIRTIO = "iommu_platform=on,disable-legacy=on"
# q35's own disk controller and SMBus: firmware and kernel would set both up, in hundreds of accesses, for nobody.
_BARE = "sata=off,smbus=off"
# Of 31. Each brings two queues, each queue twenty accesses at a start. Port 0 is a console's, so ours is the second.
_PORTS = 2
# MiB of translated code; without it QEMU takes up to 1 GiB, beyond what a container's control group leaves it.
_TCG = "tcg,tb-size=256"


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths as QEMU is given them (it runs in the launcher's private folder, so plain names will do).

    `hashes` is for an unprotected guest: the hashes table that QEMU itself injects into a protected one.
    `descriptors` are open files that QEMU inherits: the first one's path is /dev/fdset/1, and so on. `kept` are others,
    which paths of /proc name. `folders` are the spec's.
    """

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
    descriptors: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    folders: tuple[str, ...] = ()


def build(spec: Spec, *, accel: Accel, files: Files) -> list[Option]:
    """The options in order, each with its value; the program itself is the first element."""
    return [
        (spec.qemu.path,),
        *_base(spec),
        *(("-add-fd", f"fd={fd},set={number}") for number, fd in enumerate(files.descriptors, 1)),
        *_machine(spec, accel, files),
        *_boot(spec, files),
        *_devices(spec, files),
        *_folders(spec, files),
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


def _base(spec: Spec) -> list[Option]:
    options: list[Option] = [
        ("-nodefaults",),
        ("-no-user-config",),
        ("-no-reboot",),
        ("-display", "none"),
    ]
    if spec.qemu.sandbox:
        options.append(SANDBOX)
    return options


def _machine(spec: Spec, accel: Accel, files: Files) -> list[Option]:
    machine = spec.config.machine
    memory = f"{machine.memory_mib}M"
    cpu = machine.cpu
    if spec.protection is None:
        # Nothing is measured: take the CPU that the accelerator offers without a warning.
        # MONITOR is emulated by spinning as soon as there are two vCPUs, and Linux waits with it.
        cpu = "host" if accel is Accel.KVM else "max,monitor=off"
    options: list[Option] = [
        ("-machine", _machine_value(spec)),
        ("-accel", _TCG if accel is Accel.TCG else str(accel)),
        ("-cpu", cpu),
        ("-smp", str(machine.vcpus)),
        ("-m", memory),
    ]
    sev = spec.config.sev
    common = f"cbitpos={spec.cbit},reduced-phys-bits={sev.reduced_phys_bits}"
    match spec.protection:
        case Mode.SNP:
            snp = f"sev-snp-guest,id=snp0,{common},policy={sev.snp_policy:#x},kernel-hashes=on"
            options += [
                ("-object", f"memory-backend-memfd,id=ram1,size={memory},share=true,prealloc=false"),
                ("-object", snp + spec.owner.snp_properties),
            ]
        case Mode.SEV_ES | Mode.SEV:
            es = spec.protection is Mode.SEV_ES
            policy = sev.sev_es_policy if es else sev.sev_policy
            # Always pinned: the legacy VM type leaves other values in the VMSA, so another digest.
            legacy = "on" if sev.legacy_vm_type else "off"
            guest = f"sev-guest,id=sev0,{common},policy={policy:#x},kernel-hashes=on,legacy-vm-type={legacy}"
            options.append(("-object", guest + _session(files)))
        case None:
            pass
    return options


def _session(files: Files) -> str:
    """The owner's certificate and session, whose files hold base64 (sev_read_file_base64 in sev.c)."""
    if files.dh_cert is None or files.session is None:
        return ""
    return f",dh-cert-file={_value(files.dh_cert)},session-file={_value(files.session)}"


def _machine_value(spec: Spec) -> str:
    value = f"{spec.config.machine.type},vmport=off,{_BARE}"
    match spec.protection:
        case Mode.SNP:
            return f"{value},confidential-guest-support=snp0,memory-backend=ram1"
        case Mode.SEV_ES | Mode.SEV:
            return f"{value},confidential-guest-support=sev0"
        case None:
            return value


def _boot(spec: Spec, files: Files) -> list[Option]:
    options: list[Option] = []
    if spec.protection in (Mode.SEV, Mode.SEV_ES):
        drive = f"if=pflash,format=raw,unit=0,readonly=on,file={_value(files.firmware)}"
        options.append(("-drive", drive))
    else:
        options.append(("-bios", files.firmware))
    options.append(("-kernel", files.kernel))
    if files.initramfs is not None:
        options.append(("-initrd", files.initramfs))
    options.append(("-append", spec.cmdline))
    if spec.protection is None and files.hashes is not None:
        # What QEMU writes itself when SEV is on; the firmware boots nothing without it.
        loader = f"loader,file={_value(files.hashes)},addr={spec.firmware.hashes.base:#x},force-raw=on"
        options.append(("-device", loader))
        if spec.qemu.version < NAMED_KERNEL_SINCE:
            # Without SEV older QEMU edits the setup header of the kernel that it serves, so its hash would
            # differ. The firmware prefers this named blob, the unaltered file.
            options.append(("-fw_cfg", f"name=etc/boot/kernel,file={_value(files.kernel)}"))
    return options


def _network(number: int, nic: Nic) -> list[Option]:
    """One interface; without the boot program that QEMU would put into its ROM."""
    vhost = "" if nic.vhost is None else f",vhost=on,vhostfd={nic.vhost}"
    mac = nic.mac.hex(":")
    return [
        ("-netdev", f"tap,id=net{number},fd={nic.tap}{vhost}"),
        ("-device", f"virtio-net-pci,netdev=net{number},mac={mac},host_mtu={nic.mtu},romfile=,{_VIRTIO}"),
    ]


def _devices(spec: Spec, files: Files) -> list[Option]:
    options: list[Option] = [
        ("-device", f"virtio-serial-pci,id=serial0,max_ports={_PORTS},{_VIRTIO}"),
        ("-chardev", f"socket,id=agent,path={_value(files.agent_socket)}"),
        ("-device", f"virtserialport,bus=serial0.0,chardev=agent,name={AGENT_PORT}"),
    ]
    if files.rootfs is not None:
        image = f"driver=raw,node-name=rootfs,read-only=on,file.driver=file,file.filename={_value(files.rootfs)}"
        options += [
            ("-blockdev", image),
            ("-device", f"virtio-blk-pci,drive=rootfs,serial={ROOTFS_SERIAL},{_VIRTIO}"),
        ]
    for number, nic in enumerate(spec.network):
        options += _network(number, nic)
    if spec.config.devices.rng:
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


def _folders(spec: Spec, files: Files) -> list[Option]:
    """A disk for each archive, a file server in QEMU for each folder that is shared."""
    options: list[Option] = []
    for number, (path, shared) in enumerate(zip(files.folders, spec.shared, strict=True)):
        name = FOLDER.format(number)
        if shared:
            # Files belong to who QEMU runs as; what it may not do here, the guest does not get done.
            options += [
                ("-fsdev", f"local,id={name},path={_value(path)},security_model=none,multidevs=remap"),
                ("-device", f"virtio-9p-pci,fsdev={name},mount_tag={name},{_VIRTIO}"),
            ]
        else:
            image = f"driver=raw,node-name={name},read-only=on,file.driver=file,file.filename={_value(path)}"
            options += [
                ("-blockdev", image),
                ("-device", f"virtio-blk-pci,drive={name},serial={name},{_VIRTIO}"),
            ]
    return options
