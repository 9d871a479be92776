# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The kernel command line of a pod, as Kata's runtimes put it together for QEMU on x86-64.

kata-go:    words of the architecture, root of an image, consoles, quiet or debug, panic, nr_cpus, selinux,
            systemd's of an image, scsi_mod.scan, the agent's, kernel_params
kata-rust:  words of its own, root of an image, the agent's, kernel_params, selinux, console

Words and their order are facts of Kata's sources (paths are of kata-containers/kata-containers):
src/runtime/virtcontainers/qemu_amd64.go at 01e56a7c6d11, qemu_arch_base.go at 023e3d476241, qemu.go at 0083d1aee13e,
hypervisor.go, src/runtime/pkg/katautils/create.go at 00c774e2a564;
src/runtime-rs/crates/hypervisor/src/kernel_param.rs at 0a4b755cd9e2, …/qemu/cmdline_generator.rs at db04c7ec9397.
"""

import dataclasses
from collections.abc import Mapping

from tools.launcher.base.errors import UserError
from tools.launcher.base.values import Values

GO, RUST = "kata-go", "kata-rust"
FILESYSTEMS = ("erofs", "ext4", "xfs")

_ARCHITECTURE = (
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 "
    "i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0"
)
_SYSTEMD = "systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service"
_SOCKET = "systemd.mask=systemd-networkd.socket"
_TIMEOUT = "agent.launch_process_timeout=6"
_VERITY = ("root_hash", "salt", "data_blocks", "data_block_size", "hash_block_size")
_SECTOR = 512  # bytes, device mapper's unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """What differs between releases. `agent`: words that the runtime adds with its agent's default settings.

    `socket` and `console` are of kata-rust: whether it masks networkd's socket, too, and names a console.
    """

    agent: str = ""
    socket: bool = False
    console: bool = False


RELEASES: Mapping[str, Mapping[str, Release]] = {
    GO: {
        # Lines that were read from guests of these releases are in tests/launcher/kata.
        "3.5": Release(),
        "3.31": Release(agent=_TIMEOUT),
    },
    RUST: {
        # The sources named above.
        "db04c7ec9397": Release(),
        # A line of 2026, after 3.31: the exact release is not known.
        "2026": Release(agent=f"agent.cdh_api_timeout=50 {_TIMEOUT}", socket=True, console=True),
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A pod, as far as the line depends on it. `agent` None: what the release adds by itself.

    `image`: file system of a root image, None with an initramfs; `verity`: Kata's kernel_verity_params for it.
    `vcpus_max`: default_maxvcpus as Kata computes it, None where no nr_cpus is given. `scsi`: block devices are SCSI.
    """

    vmm: str
    release: str
    image: str | None = None
    verity: str = ""
    kernel_params: str = ""
    agent: str | None = None
    vcpus_max: int | None = 1
    selinux: bool = False
    debug: bool = False
    scsi: bool = False


def compose(shape: Shape) -> str:
    """The line. UserError for a release that is not known here, or what is not known of it."""
    known = RELEASES[shape.vmm]
    if shape.release not in known:
        hint = f"known: {', '.join(known)}; give the whole line with --cmdline"
        raise UserError(f"--kata-release {shape.release!r} of {shape.vmm} is not known", hint=hint)
    if shape.verity and shape.image is None:
        raise UserError("--root-verity belongs to --root-image")
    release = known[shape.release]
    agent = release.agent if shape.agent is None else shape.agent
    words = _go(shape, agent) if shape.vmm == GO else _rust(shape, release, agent)
    return " ".join(word for word in " ".join(words).split(" ") if word)


def _go(shape: Shape, agent: str) -> list[str]:
    image = shape.image is not None
    quiet = "quiet systemd.show_status=false" if image else "quiet"
    debug = "debug systemd.show_status=true systemd.log_level=debug" if image else "debug"
    return [
        _ARCHITECTURE,
        _root(shape),
        "console=hvc0 console=hvc1",
        debug if shape.debug else quiet,
        "panic=1",
        f"nr_cpus={shape.vcpus_max}" if shape.vcpus_max is not None else "",
        f"selinux={int(shape.selinux)}",
        f"{_SYSTEMD} {_SOCKET}" if image else "",
        "" if shape.scsi else "scsi_mod.scan=none",
        agent,
        shape.kernel_params,
    ]


def _rust(shape: Shape, release: Release, agent: str) -> list[str]:
    if shape.verity:
        raise UserError("--root-verity: how kata-rust writes it is not known here", hint="give --cmdline")
    return [
        "reboot=k panic=1",
        _SYSTEMD,
        _SOCKET if release.socket else "",
        "agent.log_vport=1025" if shape.debug else "",
        _root(shape),
        agent,
        shape.kernel_params,
        f"selinux={int(shape.selinux)}",
        "console=hvc0" if release.console else "",
    ]


def _root(shape: Shape) -> str:
    """The root of an image on a virtio disk: confidential guests have no NVDIMM."""
    if shape.image is None:
        return ""
    flags = "ro" if shape.image == "erofs" else "data=ordered,errors=remount-ro ro"
    table, device = (_verity(shape.verity), "/dev/dm-0") if shape.verity else ("", "/dev/vda1")
    return f"{table} root={device} rootflags={flags} rootfstype={shape.image}"


def _verity(text: str) -> str:
    """The device mapper's table of the image's second partition over its first."""
    given = Values(dict(part.partition("=")[::2] for part in text.split(",")))
    if sorted(given) != sorted(_VERITY):
        raise UserError(f"must have exactly {', '.join(_VERITY)}", where="--root-verity")
    numbers = [str(given[name]) for name in _VERITY[2:]]
    if not all(number.isascii() and number.isdecimal() and len(number) < 12 for number in numbers):
        raise UserError("numbers of blocks and their sizes must be decimal", where="--root-verity")
    for name in _VERITY[:2]:
        if not str(given[name]) or set(str(given[name])) - set("0123456789abcdef"):
            raise UserError(f"{name} must be in hexadecimal", where="--root-verity")
    blocks, data, hashes = map(int, numbers)
    sectors = blocks * data // _SECTOR
    return (
        f'dm-mod.create="dm-verity,,,ro,0 {sectors} verity 1 /dev/vda1 /dev/vda2 {data} {hashes} {blocks} 0 sha256 '
        f'{given["root_hash"]} {given["salt"]}"'
    )
