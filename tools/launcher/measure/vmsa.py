# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The VMSA page (encrypted register state) of a vCPU as QEMU resets it and KVM hands it to the firmware.

The layout is tools/sev/vmsa.py's; the values are this side's own: the reset state of APM table 14-1 as QEMU sets it
(target/i386/cpu.c, x86_cpu_reset_hold()) and KVM stores it (arch/x86/kvm/svm: init_vmcb(),
sev_es_sync_vmsa()). The legacy variant equals, register by register, the dump of a running two-vCPU guest's
VMSAs in qemu-devel, 2021-12-16, <336cbad3-06da-f11c-8cd1-ca058dd9c6b0@linux.ibm.com>.
"""

import struct

from tools.sev.limits import PAGE
from tools.sev.vmsa import MXCSR, REGISTERS, SEGMENTS, X87_FCW

_DATA = 0x93
# Attributes; selector 0, limit 0xffff and base 0 everywhere but CS.
_SEGMENTS = {
    "ES": _DATA,
    "SS": _DATA,
    "DS": _DATA,
    "FS": _DATA,
    "GS": _DATA,
    "GDTR": 0x00,
    "LDTR": 0x82,
    "IDTR": 0x00,
    "TR": 0x8B,
}
# 64-bit registers that are not zero and the same in every vCPU.
_REGISTERS = {
    "EFER": 0x1000,  # SVME, which KVM needs set
    "CR4": 0x40,  # MCE, set by KVM
    "CR0": 0x10,  # ET; KVM clears CD and NW
    "DR7": 0x400,
    "DR6": 0xFFFF0FF0,
    "RFLAGS": 0x2,
    "G_PAT": 0x0007040600070406,
    "XCR0": 0x1,  # x87
}


def page(*, eip: int, signature: int, features: int, fpu: bool) -> bytes:
    """The 4096 bytes of a VMSA that starts at the 32-bit address `eip` in real mode.

    `signature` is in EDX at reset; `features` is SEV_FEATURES (bit 0: SNP). `fpu` False: the legacy VM type,
    for which KVM leaves the control words of x87 and SSE out.
    """
    vmsa = bytearray(PAGE)
    for name, attributes in _SEGMENTS.items():
        struct.pack_into("<HHIQ", vmsa, SEGMENTS[name], 0, attributes, 0xFFFF, 0)
    struct.pack_into("<HHIQ", vmsa, SEGMENTS["CS"], 0xF000, 0x9B, 0xFFFF, eip & 0xFFFF0000)
    for name, value in {**_REGISTERS, "RIP": eip & 0xFFFF, "RDX": signature, "SEV_FEATURES": features}.items():
        struct.pack_into("<Q", vmsa, REGISTERS[name], value)
    if fpu:
        struct.pack_into("<I", vmsa, MXCSR, 0x1F80)
        struct.pack_into("<H", vmsa, X87_FCW, 0x37F)
    return bytes(vmsa)
