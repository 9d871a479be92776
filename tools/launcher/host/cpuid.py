# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""CPUID leaf 0x8000001F: memory encryption (AMD APM volume 3, appendix E.4.17)."""

import ctypes
import mmap
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Registers = tuple[int, int, int, int]
Reader = Callable[[int], Registers]
LEAF = 0x8000001F

# void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]), System V calling convention:
# push rbx; mov r8,rdx; mov eax,edi; mov ecx,esi; cpuid; mov [r8],eax; mov [r8+4],ebx; mov [r8+8],ecx;
# mov [r8+12],edx; pop rbx; ret
_CODE = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")


@dataclass(frozen=True, kw_only=True)
class MemoryEncryption:
    """What the CPU (as this machine sees it) can do. `cbit` is the C-bit's position in a page table entry."""

    sev: bool
    sev_es: bool
    snp: bool
    cbit: int
    reduced_phys_bits: int


def decode(eax: int, ebx: int) -> MemoryEncryption:
    """Fields of leaf 0x8000001F: EAX bits 1, 3, 4; EBX[5:0], EBX[11:6]."""
    return MemoryEncryption(
        sev=bool(eax & 1 << 1),
        sev_es=bool(eax & 1 << 3),
        snp=bool(eax & 1 << 4),
        cbit=ebx & 0x3F,
        reduced_phys_bits=ebx >> 6 & 0x3F,
    )


def memory_encryption(reader: Reader | None = None) -> MemoryEncryption | None:
    """Ask the CPU; None when it has no such leaf or cannot be asked."""
    try:
        read = reader or _reader()
        # The leaf belongs to AMD; other vendors answer an unknown leaf with another one's values.
        _, ebx, ecx, edx = read(0)
        if struct.pack("<III", ebx, edx, ecx) != b"AuthenticAMD":
            return None
        if read(0x80000000)[0] < LEAF:
            return None
        eax, ebx, _, _ = read(LEAF)
    except OSError:
        return None
    return decode(eax, ebx)


def _reader() -> Reader:
    device = Path("/dev/cpu/0/cpuid")
    try:
        with device.open("rb", buffering=0):
            pass
    except OSError:
        return _execute
    return _from_device(device)


def _from_device(device: Path) -> Reader:
    def read(leaf: int) -> Registers:
        # The file offset selects the leaf (arch/x86/kernel/cpuid.c); one read gives 16 bytes.
        with device.open("rb", buffering=0) as stream:
            stream.seek(leaf)
            data = stream.read(16)
        if len(data) != 16:
            raise OSError("short read from the cpuid device")
        eax, ebx, ecx, edx = struct.unpack("<4I", data)
        return eax, ebx, ecx, edx

    return read


def _execute(leaf: int) -> Registers:
    """Run the instruction from an executable page; OSError where the system does not allow one."""
    if platform.machine() != "x86_64":
        raise OSError("no x86-64 CPU")
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_CODE)
        anchor = ctypes.c_char.from_buffer(page)
        function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(anchor))
        out = (ctypes.c_uint32 * 4)()
        function(leaf, 0, ctypes.addressof(out))
        # The page cannot be unmapped while an object points into it.
        del function, anchor
    return out[0], out[1], out[2], out[3]
