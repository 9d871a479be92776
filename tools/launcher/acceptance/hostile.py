# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a host changes of a start. Each change is one that boots where nobody verifies: a text, never code."""

import dataclasses
from pathlib import Path

from tools.launcher.config.owner import SignedIdBlock
from tools.launcher.guest.command_line import Option
from tools.launcher.guest.staging import Staging
from tools.sev.id_block import AUTH_SIZE

_WORD = " acceptance"
_VERSION_AT = 0x20E
"""kernel_version of the setup header, an offset less 0x200: Documentation/arch/x86/boot.rst."""
_SIGNATURE_AT = 0x40
"""The block's signature in the ID authentication information."""


def kernel(staging: Staging) -> None:
    """One bit of the kernel's text for boot loaders is another."""
    path = staging.folder / staging.files.kernel
    data = bytearray(path.read_bytes())
    data[int.from_bytes(data[_VERSION_AT : _VERSION_AT + 2], "little") + 0x200] ^= 1
    _rewrite(path, bytes(data))


def initramfs(staging: Staging) -> None:
    """An archive without files stands behind the initramfs, which the kernel takes as one more."""
    assert staging.files.initramfs is not None
    path = staging.folder / staging.files.initramfs
    data = path.read_bytes()
    _rewrite(path, data + bytes(-len(data) % 4) + _no_files())


def cmdline(staging: Staging) -> None:
    """A word more on the kernel's command line, which nothing reads."""
    staging.spec = dataclasses.replace(staging.spec, cmdline=staging.spec.cmdline + _WORD)


def _no_files() -> bytes:
    """A cpio archive: Documentation/driver-api/early-userspace/buffer-format.rst."""
    name = b"TRAILER!!!\0"
    fields = (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % 4)


def _rewrite(path: Path, data: bytes) -> None:
    """In the same file, whose owner and mode QEMU needs."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode & 0o777)


def longer_firmware(staging: Staging, size: int) -> None:
    """As many bytes, by ones in front of it: what is there stays where it was, below 4 GiB."""
    path = staging.folder / staging.files.firmware
    data = path.read_bytes()
    _rewrite(path, data.rjust(size, b"\xff"))


def other_signature(signed: SignedIdBlock) -> SignedIdBlock:
    """One bit of it is another."""
    auth = bytearray(signed.auth)
    auth[_SIGNATURE_AT] ^= 1
    assert len(auth) == AUTH_SIZE
    return dataclasses.replace(signed, auth=bytes(auth))


def without_platform(options: list[Option]) -> list[Option]:
    """The random number generator does not offer VIRTIO_F_ACCESS_PLATFORM; the agent's port still does."""
    return [
        tuple(word.replace("iommu_platform=on", "iommu_platform=off") for word in option)
        if option[1:] and option[1].startswith("virtio-rng-pci,")
        else option
        for option in options
    ]
