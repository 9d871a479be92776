# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Our agent on Debian's kernel: the same guest without our kernel patches. Drivers that are modules there are loaded
before the agent starts, by busybox."""

import lzma
from collections.abc import Iterator
from pathlib import Path

from tools.attack.guests.initramfs import with_file
from tools.pipeline.base.errors import BuildError

_MODULES = ("virtio_blk",)
_AGENT, _FIRST = "agent", "init"
_FILE = 0o100000
_HEADER = 110  # bytes: "070701" and thirteen fields of eight digits (kernel, Documentation/driver-api/early-userspace)
_SCRIPT = "#!/busybox sh\n{load}exec /" + _AGENT + "\n"


def kernel(tree: Path) -> Path:
    """Its kernel; BuildError unless there is one."""
    found = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        raise BuildError(f"has {len(found)} kernels in boot/, not one", where=str(tree))
    return found[0]


def initramfs(ours: bytes, *, busybox: Path, tree: Path) -> bytes:
    """`ours`, uncompressed, with what Debian's kernel needs; `tree` has that kernel's package."""
    folders = sorted((tree / "usr/lib/modules").glob("*/kernel"))
    if len(folders) != 1:
        raise BuildError(f"has {len(folders)} kernels' modules, not one's", where=str(tree))
    files: dict[str, tuple[int, bytes]] = {
        _AGENT: (0o755, _member(ours, _FIRST)),
        "busybox": (0o755, busybox.read_bytes()),
    }
    for name in _MODULES:
        (packed,) = sorted(folders[0].glob(f"**/{name}.ko.xz"))
        files[f"{name}.ko"] = 0o644, lzma.decompress(packed.read_bytes())
    load = "".join(f"/busybox insmod /{name}.ko\n" for name in _MODULES)
    files[_FIRST] = 0o755, _SCRIPT.format(load=load).encode()
    for name, (mode, data) in files.items():
        ours = with_file(ours, name.encode(), data, mode=_FILE | mode)
    return ours


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while archive[at : at + 6] == b"070701":
        fields = [int(archive[at + i : at + i + 8], 16) for i in range(6, _HEADER, 8)]
        size, length = fields[6], fields[11]
        start = at + _HEADER
        name = archive[start : start + length - 1].decode()
        data = -(-(start + length) // 4) * 4
        yield name, archive[data : data + size]
        at = -(-(data + size) // 4) * 4


def _member(archive: bytes, name: str) -> bytes:
    for found, data in _members(archive):
        if found.lstrip("/") == name:
            return data
    raise BuildError(f"has no {name}", where="the initramfs")
