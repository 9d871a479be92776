# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An initramfs taken apart and changed. The kernel takes it uncompressed as well."""

import subprocess

from tools.attack.base.lab import Lab
from tools.pipeline.base.errors import BuildError

_ZSTD = b"\x28\xb5\x2f\xfd"
_MTIME = 46  # where the date stands in a member of the format newc (cpio(5)), eight digits


def unpacked(lab: Lab, data: bytes) -> bytes:
    """The cpio archive in it; BuildError for one that is neither plain nor compressed with zstd."""
    if not data.startswith(_ZSTD):
        if not data.startswith(b"07070"):
            raise BuildError("the initramfs is compressed with something else than zstd")
        return data
    argv = [str(lab.tool("zstd", "build")), "-dc"]
    done = subprocess.run(argv, input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"the initramfs cannot be unpacked: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def redated(archive: bytes) -> bytes:
    """One bit of the first member's date differs."""
    at = _MTIME + 7
    return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]


def with_file(initramfs: bytes, name: bytes, data: bytes, *, mode: int = 0o100755) -> bytes:
    """With an archive of one file behind it, which replaces a file of this name.

    Documentation/driver-api/early-userspace/buffer-format.rst: archives, each compressed or not, one behind the other.
    """
    added = _member(name, mode, data) + _member(b"TRAILER!!!", 0, b"")
    return _padded(initramfs) + added


def _member(name: bytes, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
