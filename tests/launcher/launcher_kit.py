# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Made-up but well-formed artifacts and the config that belongs to them."""

import copy
import hashlib
import struct
import uuid
from pathlib import Path
from typing import Any

TABLE = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
HASHES = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
SECRET = uuid.UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294").bytes_le
ES_RESET = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
METADATA = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
CMDLINE = "panic=-1 quiet loglevel=1 sev_agent.profile=production"


def firmware_image(
    *,
    pages: int = 4,
    hashes: tuple[int, int] | None = (0x810C00, 0x400),
    sections: tuple[int, ...] = (1, 2, 3, 0x10),
    total: int | None = None,
    es_reset: bool = True,
) -> bytes:
    """An image with nothing but footer and metadata, laid out as edk2 does."""
    size = pages * 4096
    metadata_at = size - 2048
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(
        struct.pack("<III", 0x800000 + 0x1000 * i, 0x1000, s) for i, s in enumerate(sections)
    )
    entries = b""
    for guid, data in (
        (METADATA, struct.pack("<I", size - metadata_at)),
        (HASHES, None if hashes is None else struct.pack("<II", *hashes)),
        (SECRET, struct.pack("<II", 0x80D000, 0x400)),
        (ES_RESET, struct.pack("<I", 0x80B004) if es_reset else None),
    ):
        if data is not None:
            entries += data + struct.pack("<H", len(data) + 18) + guid
    length = len(entries) + 18
    footer = entries + struct.pack("<H", length if total is None else total) + TABLE
    image = bytearray(size)
    image[metadata_at : metadata_at + len(metadata)] = metadata
    image[size - 32 - len(footer) : size - 32] = footer
    return bytes(image)


def document() -> dict[str, Any]:
    """A config as runtime.toml has it, without artifacts."""
    return copy.deepcopy(
        {
            "schema": 1,
            "profile": "production",
            "version": "0.1.0",
            "artifacts": {},
            "machine": {"type": "q35", "cpu": "EPYC-v4", "vcpus": 1, "memory": "512M"},
            "kernel": {"cmdline": CMDLINE},
            "sev": {
                "mode": "snp",
                "reduced-phys-bits": 1,
                "kernel-hashes": True,
                "snp": {"policy": 0x30000},
                "sev-es": {"policy": 5, "legacy-vm-type": False},
                "sev": {"policy": 1},
            },
            "devices": {
                "agent-port": "org.sev-artifacts.agent.0",
                "rootfs-serial": "rootfs",
                "console": "none",
                "rng": True,
            },
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


class Out:
    """A folder like out/."""

    def __init__(self, folder: Path, *, initramfs: bool = True, firmware: bytes | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.data = document()
        files = {
            "kernel": ("vmlinuz", b"kernel" * 100),
            "firmware": ("OVMF.fd", firmware or firmware_image()),
        }
        if initramfs:
            files["initramfs"] = ("initramfs.cpio.zst", b"initramfs" * 50)
        for role, (name, content) in files.items():
            (folder / name).write_bytes(content)
            entry = {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            self.data["artifacts"][role] = entry
        self.write()

    @property
    def config(self) -> Path:
        return self.folder / "runtime.toml"

    def write(self) -> None:
        self.config.write_text(render(self.data))
