# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""ACPI tables of a host's own making: QEMU's, changed, handed to the firmware in fw_cfg as QEMU hands over its own.

Firmware takes three files: the tables in one blob, the root pointer, and a script that says where they go and which
fields in them are addresses (QEMU, hw/acpi/bios-linker-loader.c). OVMF sets the FADT's pointers to DSDT and FACS
itself; SeaBIOS leaves them as they are.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

from tools.attack.acpi.machine import Boot
from tools.pipeline.base.errors import BuildError

_HEADER = 36
_CHECKSUM = 9
_FADT_FACS, _FADT_DSDT = 36, 40
_FADT_X = 132, 140  # the same as 64-bit pointers, which stay 0
_FACS = struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")
_TABLES, _RSDP, _LOADER = "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"
_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_HIGH, _FSEG = 1, 2
_RSDP_SIZE, _RSDP_POINTER, _RSDP_CHECKSUM = 20, 16, 8


def of(boot: Boot) -> dict[str, bytes]:
    """The tables that the firmware has laid out for an honest guest, by signature; BuildError for a damaged one."""
    found = {}
    for area in boot.areas("ACPI data"):
        data = boot.read(area.start, area.end - area.start)
        for signature in ("APIC", "DSDT", "FACP", "HPET", "MCFG"):
            at = data.find(signature.encode())
            if at >= 0:
                (length,) = struct.unpack_from("<I", data, at + 4)
                if sum(data[at : at + length]) % 256:
                    raise BuildError("has a wrong checksum", where=f"{signature} at {area.start + at:#x}")
                found[signature] = data[at : at + length]
    return found


def patched(table: bytes, fields: Mapping[int, bytes]) -> bytes:
    """The table with other bytes at these offsets; length and checksum follow."""
    new = bytearray(table)
    for offset, value in fields.items():
        new[offset : offset + len(value)] = value
    new[4:8] = struct.pack("<I", len(new))
    new[_CHECKSUM] = 0
    new[_CHECKSUM] = -sum(new) % 256
    return bytes(new)


def register(address: int, *, bits: int) -> bytes:
    """A generic address structure: a register in system memory."""
    return struct.pack("<BBBBQ", 0, bits, 0, 1, address)


def options(folder: Path, tables: Mapping[str, bytes], *more: bytes, facs: int | None = None) -> list[str]:
    """QEMU's options for these tables (with a DSDT and a FADT), and `more` tables, in the place of its own.

    An address for the FACS is only believed by SeaBIOS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blob = bytearray()
    at = {}
    for name, table in (("FACS", _FACS), *tables.items(), *((f"more{i}", table) for i, table in enumerate(more))):
        blob += bytes(-len(blob) % 64)
        at[name] = len(blob)
        blob += table
    root = [name for name in at if name not in ("DSDT", "FACS")]
    blob += bytes(-len(blob) % 64)
    rsdt = len(blob)
    blob += struct.pack("<4sIBB6s8sI4sI", b"RSDT", _HEADER + 4 * len(root), 1, 0, b"SEVTST", b"TABLES", 1, b"TEST", 1)
    script = [_allocate(_RSDP, zone=_FSEG), _allocate(_TABLES, zone=_HIGH)]
    for offset in _FADT_X:
        struct.pack_into("<Q", blob, at["FACP"] + offset, 0)
    for name, offset in (("DSDT", _FADT_DSDT), *((("FACS", _FADT_FACS),) if facs is None else ())):
        struct.pack_into("<I", blob, at["FACP"] + offset, at[name])
        script.append(_pointer(_TABLES, at["FACP"] + offset))
    if facs is not None:
        struct.pack_into("<I", blob, at["FACP"] + _FADT_FACS, facs)
    for name in root:
        script.append(_pointer(_TABLES, len(blob)))
        blob += struct.pack("<I", at[name])
    for start, size in ((at["FACP"], len(tables["FACP"])), (rsdt, len(blob) - rsdt)):
        blob[start + _CHECKSUM] = 0
        script.append(_checksum(_TABLES, start + _CHECKSUM, start, size))
    rsdp = struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"SEVTST", 0, rsdt)
    script += [_pointer(_RSDP, _RSDP_POINTER), _checksum(_RSDP, _RSDP_CHECKSUM, 0, _RSDP_SIZE)]
    words = ["-machine", "acpi=off"]
    for name, data in ((_TABLES, bytes(blob)), (_RSDP, rsdp), (_LOADER, b"".join(script))):
        path = folder / name.replace("/", "-")
        path.write_bytes(data)
        words += ["-fw_cfg", f"name={name},file={path}"]
    return words


def _allocate(file: str, *, zone: int) -> bytes:
    return struct.pack("<I56sIB", _ALLOCATE, file.encode(), 64 if zone == _HIGH else 16, zone).ljust(128, b"\0")


def _pointer(file: str, offset: int) -> bytes:
    return struct.pack("<I56s56sIB", _ADD_POINTER, file.encode(), _TABLES.encode(), offset, 4).ljust(128, b"\0")


def _checksum(file: str, offset: int, start: int, length: int) -> bytes:
    return struct.pack("<I56sIII", _ADD_CHECKSUM, file.encode(), offset, start, length).ljust(128, b"\0")
