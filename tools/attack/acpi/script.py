# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts for the firmware's loader of ACPI tables that no honest host writes (QEMU, hw/acpi/bios-linker-loader.c).

A script allocates memory for files of fw_cfg, adds their addresses to pointers in them, and computes checksums. It is
the host's, and the firmware runs it before the kernel starts.
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

ALLOCATE, ADD_POINTER, ADD_CHECKSUM, WRITE_POINTER = 1, 2, 3, 4
HIGH = 1
LOADER = "etc/table-loader"
_COMMAND = 128  # bytes of each
_NAME = 56


def allocate(file: str, *, align: int = 64, zone: int = HIGH) -> bytes:
    """Memory for a file, with its content."""
    return _padded(struct.pack("<I56sIB", ALLOCATE, file.encode(), align, zone))


def pointer(file: str, to: str, offset: int, *, size: int = 8) -> bytes:
    """The address of the file `to` is added to `size` bytes of the other one."""
    return _padded(struct.pack("<I56s56sIB", ADD_POINTER, file.encode(), to.encode(), offset, size))


def checksum(file: str, *, result: int, start: int, length: int) -> bytes:
    """A byte that makes the sum of others zero."""
    return _padded(struct.pack("<I56sIII", ADD_CHECKSUM, file.encode(), result, start, length))


def write_pointer(file: str, to: str, *, offset: int, at: int, size: int = 8) -> bytes:
    """The address of `at` in the file `to` is written back into a file of the host's."""
    return _padded(struct.pack("<I56s56sIIB", WRITE_POINTER, file.encode(), to.encode(), offset, at, size))


def unknown(kind: int) -> bytes:
    """A command that does not exist."""
    return _padded(struct.pack("<I", kind))


def options(folder: Path, commands: Iterable[bytes], files: Mapping[str, bytes]) -> list[str]:
    """QEMU's options for this script and these files in the place of its own tables; in the new `folder`."""
    folder.mkdir(parents=True)
    words = ["-machine", "acpi=off"]
    for number, (name, data) in enumerate({LOADER: b"".join(commands), **files}.items()):
        path = folder / str(number)
        path.write_bytes(data)
        words += ["-fw_cfg", f"name={name},file={path}"]
    return words


def _padded(command: bytes) -> bytes:
    return command.ljust(_COMMAND, b"\0")


# What is aimed at lies behind the first file in memory: files are laid out from the top of memory downwards.
_UPPER, _LOWER, _FIELDS = "etc/acpi/upper", "etc/acpi/lower", "etc/acpi/fields"
_HEADERS = 2048
_STRIDE = 64
_FIRST = 16  # so that no header is where a table would be, at a page's beginning
TAKEN = b"LEAK"
"""Signature of what the firmware takes for a table."""
LENGTH = 256 << 10
"""Bytes of memory that it takes."""


def moved() -> tuple[list[bytes], dict[str, bytes]]:
    """A script that moves pointers after they were checked, and its files.

    The second pass sees pointers of the lower file that lead into the upper one, behind the lower one's end: by that,
    "what remains" of the lower file is negative, and any length fits. The memory behind is not known to the host, and
    changes meanwhile: each of 2,048 headers of tables fits to it with a chance of one in 256.
    """
    upper = bytearray(_FIRST + _HEADERS * _STRIDE)
    for number in reversed(range(_HEADERS)):
        place = _FIRST + number * _STRIDE
        struct.pack_into("<4sI", upper, place, TAKEN, LENGTH - place)
        # With the unknown sum of what lies behind, this one's sum is 0 for one of the numbers.
        upper[place + 9] = (number - sum(upper[place:])) % 256
    fields = bytearray(_HEADERS * 16 + 1)
    spare = len(fields) - 1
    commands = [allocate(_UPPER), allocate(_LOWER), allocate(_FIELDS)]
    # The second pass takes an address once: these come first.
    commands += [pointer(_FIELDS, _LOWER, number * 16 + 8) for number in range(_HEADERS)]
    for number in range(_HEADERS):
        struct.pack_into("<Q", fields, number * 16, _FIRST + number * _STRIDE)
        commands.append(pointer(_FIELDS, _UPPER, number * 16))
        for byte in range(8):
            # A checksum of one byte is its negative; twice, and the byte is copied.
            commands.append(checksum(_FIELDS, result=spare, start=number * 16 + byte, length=1))
            commands.append(checksum(_FIELDS, result=number * 16 + 8 + byte, start=spare, length=1))
    return commands, {_UPPER: bytes(upper), _LOWER: bytes(64), _FIELDS: bytes(fields)}
