# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The VMSA page (encrypted register state) of a vCPU as QEMU resets it and KVM hands it to the firmware.

Offsets: AMD APM volume 2, table B-4. Values: the reset state of APM table 14-1 as QEMU sets it
(target/i386/cpu.c, x86_cpu_reset_hold()) and KVM stores it (arch/x86/kvm/svm: init_vmcb(),
sev_es_sync_vmsa()). The legacy variant equals, register by register, the dump of a running two-vCPU guest's
VMSAs in qemu-devel, 2021-12-16, <336cbad3-06da-f11c-8cd1-ca058dd9c6b0@linux.ibm.com>.
"""

import struct

PAGE = 4096
RESET_VECTOR = 0xFFFFFFF0
# Offset, selector, attributes (type, S, DPL, P of the descriptor); limit 0xffff and base 0 everywhere but CS.
_SEGMENTS = (
    (0x000, 0, 0x93),  # ES
    (0x020, 0, 0x93),  # SS
    (0x030, 0, 0x93),  # DS
    (0x040, 0, 0x93),  # FS
    (0x050, 0, 0x93),  # GS
    (0x060, 0, 0x00),  # GDTR
    (0x070, 0, 0x82),  # LDTR
    (0x080, 0, 0x00),  # IDTR
    (0x090, 0, 0x8B),  # TR
)
_CS = 0x010
# 64-bit registers that are not zero and the same in every vCPU.
_REGISTERS = (
    (0x0D0, 0x1000),  # EFER: SVME, which KVM needs set
    (0x148, 0x40),  # CR4: MCE, set by KVM
    (0x158, 0x10),  # CR0: ET; KVM clears CD and NW
    (0x160, 0x400),  # DR7
    (0x168, 0xFFFF0FF0),  # DR6
    (0x170, 0x2),  # RFLAGS
    (0x268, 0x0007040600070406),  # G_PAT
    (0x3E8, 0x1),  # XCR0: x87
)
_RIP, _RDX, _FEATURES = 0x178, 0x310, 0x3B0
_MXCSR, _FCW = 0x408, 0x410


def page(*, eip: int, signature: int, features: int, fpu: bool) -> bytes:
    """The 4096 bytes of a VMSA that starts at the 32-bit address `eip` in real mode.

    `signature` is in EDX at reset; `features` is SEV_FEATURES (bit 0: SNP). `fpu` False: the legacy VM type,
    for which KVM leaves the control words of x87 and SSE out.
    """
    vmsa = bytearray(PAGE)
    for offset, selector, attributes in _SEGMENTS:
        struct.pack_into("<HHIQ", vmsa, offset, selector, attributes, 0xFFFF, 0)
    struct.pack_into("<HHIQ", vmsa, _CS, 0xF000, 0x9B, 0xFFFF, eip & 0xFFFF0000)
    for offset, value in (*_REGISTERS, (_RIP, eip & 0xFFFF), (_RDX, signature), (_FEATURES, features)):
        struct.pack_into("<Q", vmsa, offset, value)
    if fpu:
        struct.pack_into("<I", vmsa, _MXCSR, 0x1F80)
        struct.pack_into("<H", vmsa, _FCW, 0x37F)
    return bytes(vmsa)
