# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Made-up but well-formed artifacts and the config that belongs to them."""

import copy
import functools
import hashlib
import struct
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tools.launcher.host.cpuid import MemoryEncryption
from tools.launcher.host.facts import HostFacts
from tools.pipeline.measure import table
from tools.sev.errors import FormatError
from tools.sev.modes import ProfileKind

TABLE = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
HASHES = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
SECRET = uuid.UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294").bytes_le
ES_RESET = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
METADATA = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
NV_STORE = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le
FFS2 = uuid.UUID("8c8ce578-8a3d-4f1c-9935-896185c32dd3").bytes_le
# Where edk2's AmdSev platform has them, by type.
SECTIONS = {
    1: (0x800000, 0xD000),
    2: (0x80D000, 0x1000),
    3: (0x80E000, 0x1000),
    4: (0x80F000, 0x1000),
    0x10: (0x810000, 0x1000),
}
ROLES = ("firmware", "kernel", "initramfs")
REPOSITORY = Path(__file__).resolve().parents[2]
CMDLINE = "panic=-1 quiet loglevel=1 sev_agent.profile=production"
UNBOUND = f"{CMDLINE} sev_agent.unbound"
"""What an unbound guest without further options boots with."""


def firmware_image(
    *,
    pages: int = 4,
    hashes: tuple[int, int] | None = (0x810C00, 0x400),
    sections: tuple[int, ...] = (1, 2, 3, 0x10),
    total: int | None = None,
    es_reset: bool = True,
) -> bytes:
    """An image with nothing but volume headers, footer and metadata, laid out as edk2 does."""
    size = pages * 4096
    metadata_at = size - 2048
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *SECTIONS.get(kind, (0, 0)), kind) for kind in sections)
    entries = b""
    for guid, data in (
        (METADATA, struct.pack("<I", size - metadata_at)),
        (HASHES, None if hashes is None else struct.pack("<II", *hashes)),
        (SECRET, struct.pack("<II", 0x810000, 0xC00)),
        (ES_RESET, struct.pack("<I", 0x80B004) if es_reset else None),
    ):
        if data is not None:
            entries += data + struct.pack("<H", len(data) + 18) + guid
    length = len(entries) + 18
    footer = entries + struct.pack("<H", length if total is None else total) + TABLE
    image = bytearray(size)
    image[metadata_at : metadata_at + len(metadata)] = metadata
    image[size - 32 - len(footer) : size - 32] = footer
    image[size - 20 : size - 16] = b"VTF\0"
    for offset, length, guid in ((0, 4096, NV_STORE), (4096, size - 4096, FFS2)):
        image[offset : offset + 72] = volume_header(length, guid)
    return bytes(image)


def volume_header(length: int, guid: bytes) -> bytes:
    """72 bytes with a valid checksum."""
    header = bytearray(16) + guid
    header += struct.pack("<Q4sIHHHBBIIII", length, b"_FVH", 0, 72, 0, 0, 0, 2, 1, length, 0, 0)
    struct.pack_into("<H", header, 50, -sum(struct.unpack("<36H", header)) & 0xFFFF)
    return bytes(header)


def document() -> dict[str, Any]:
    """A config as runtime.toml has it, without artifacts."""
    return copy.deepcopy(
        {
            "schema": 5,
            "profile": "production",
            "version": "0.1.0",
            "artifacts": {},
            "machine": {"type": "q35", "cpu": "EPYC-v4", "vcpus": 1, "memory": "512M"},
            "kernel": {"cmdline": CMDLINE},
            "sev": {
                "mode": "snp",
                "reduced-phys-bits": 1,
                "snp": {"policy": 0x30000},
                "sev-es": {"policy": 0x3F, "legacy-vm-type": False},
                "sev": {"policy": 0x3B},
            },
            "devices": {"console": "none", "rng": True},
            "launch-digest": {"snp": "0" * 96, "sev-es": "0" * 64, "sev": "0" * 64},
        }
    )


def render(data: dict[str, Any], prefix: str = "") -> str:
    """Enough TOML for these tests."""
    lines, tables = [], []
    for key, value in data.items():
        if isinstance(value, dict):
            tables.append(f"[{prefix}{key}]\n{render(value, f'{prefix}{key}.')}")
        elif isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}\n")
        elif isinstance(value, str):
            lines.append(f'{key} = "{value}"\n')
        else:
            lines.append(f"{key} = {value!r}\n")
    return "".join(lines + tables)


@functools.cache
def measured(firmware: bytes, kernel: bytes, initramfs: bytes | None) -> dict[str, Any]:
    """launch-digests.json of these artifacts and document(), as the build computes it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for role, name, content in (
            ("firmware", "OVMF.fd", firmware),
            ("kernel", "vmlinuz", kernel),
            ("initramfs", "initramfs.cpio.zst", initramfs),
        ):
            if content is not None:
                paths[role] = Path(folder, name)
                paths[role].write_bytes(content)
        guest = table.Guest(
            profile=ProfileKind.PRODUCTION,
            version="0.1.0",
            cpu="EPYC-v4",
            vcpus=1,
            legacy_vm_type=False,
            cmdline=CMDLINE,
            firmware_size=len(firmware),
            artifacts={role: path.name for role, path in paths.items()},
        )
        return table.document(guest, paths)


class Out:
    """A folder like out/; firmware from which no digest can be computed leaves launch-digests.json out.

    `qemu`: what lies there as the QEMU of these artifacts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        initramfs: bool = True,
        firmware: bytes | None = None,
        qemu: bytes | None = None,
        kernel: bytes = b"kernel" * 100,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.data = document()
        files = {
            "kernel": ("vmlinuz", kernel),
            "firmware": ("OVMF.fd", firmware or firmware_image()),
        }
        if initramfs:
            files["initramfs"] = ("initramfs.cpio.zst", b"initramfs" * 50)
        if qemu is not None:
            files["qemu"] = ("qemu-lite", qemu)
        for role, (name, content) in files.items():
            (folder / name).write_bytes(content)
            entry = {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            self.data["artifacts"][role] = entry
        try:
            found = measured(*(files[role][1] if role in files else None for role in ROLES))
        except FormatError:
            pass
        else:
            self.data["launch-digest"] = dict(found["configured"]["digests"])
            self.digests.write_text(table.serialise(found))
        self.write()

    @property
    def digests(self) -> Path:
        return self.folder / "launch-digests.json"

    @property
    def config(self) -> Path:
        return self.folder / "runtime.toml"

    def write(self) -> None:
        self.config.write_text(render(self.data))


def facts(**changes: object) -> HostFacts:
    values = {
        "kvm_error": None,
        "sev_error": None,
        "encryption": MemoryEncryption(sev=True, sev_es=True, snp=True, cbit=51, reduced_phys_bits=1),
        "parameters": {"sev": "Y", "sev_es": "Y", "sev_snp": "Y"},
    } | changes
    return HostFacts(**values)  # type: ignore[arg-type]  # fields of several types
