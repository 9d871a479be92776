# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The script that moves pointers, run as firmware runs it: it does what its row says of it."""

import struct

from tools.attack.acpi import script

_BASES = (0x1F000000, 0x1E000000, 0x1D000000)  # from the top of memory downwards


def _name(field: bytes) -> str:
    return field.rstrip(b"\0").decode()


def _run(commands: list[bytes], files: dict[str, bytes]) -> tuple[dict[str, bytearray], dict[str, int]]:
    """The first pass (edk2, OvmfPkg/Library/AcpiPlatformLib/QemuFwCfgAcpi.c): files in memory, and where."""
    there: dict[str, bytearray] = {}
    base: dict[str, int] = {}
    for command in commands:
        assert len(command) == 128
        (kind,) = struct.unpack_from("<I", command)
        name = _name(command[4:60])
        if kind == script.ALLOCATE:
            base[name] = _BASES[len(base)]
            there[name] = bytearray(files[name])
        elif kind == script.ADD_POINTER:
            to = _name(command[60:116])
            offset, size = struct.unpack_from("<IB", command, 116)
            value = int.from_bytes(there[name][offset : offset + size], "little")
            assert value < len(there[to])
            there[name][offset : offset + size] = (value + base[to]).to_bytes(size, "little")
        else:
            assert kind == script.ADD_CHECKSUM
            result, start, length = struct.unpack_from("<III", command, 60)
            assert max(result + 1, start + length) <= len(there[name])
            there[name][result] = -sum(there[name][start : start + length]) % 256
    return there, base


def test_pointers_lead_out_of_the_file_that_they_were_checked_for() -> None:
    commands, files = script.moved()
    there, base = _run(commands, files)
    upper, lower, fields = there
    seen = set()
    for command in commands:
        if struct.unpack_from("<I", command) == (script.ADD_POINTER,) and _name(command[60:116]) == lower:
            (offset,) = struct.unpack_from("<I", command, 116)
            (value,) = struct.unpack_from("<Q", there[fields], offset)
            place = value - base[upper]
            signature, length = struct.unpack_from("<4sI", there[upper], place)
            assert (signature, place + length) == (script.TAKEN, script.LENGTH)
            assert value % 4096  # so that a copy at a page's beginning is the firmware's
            seen.add(sum(there[upper][place:]) % 256)
    # Whatever the memory behind the file adds up to, some header makes a table of it.
    assert seen == set(range(256))
