# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The VMSA (encrypted register state of a vCPU): where its fields are, and what of it is ours to choose.

Offsets: AMD APM volume 2, table B-4. Which value each field has when a vCPU starts is not here: the pipeline
takes that from sev-snp-measure, the launcher has it in tools/launcher/measure/vmsa.py, and both must agree.
"""

SNP_FEATURES = 0x1
"""SEV_FEATURES under SNP (AMD APM volume 2, 15.36): SNPActive alone, so KVM's debug_swap is off."""
SEV_ES_FEATURES = 0x0
VMSA_GPA = 0xFFFFFFFFF000
"""Guest-physical address under which KVM has each VMSA measured (Linux, svm/sev.c, INITIAL_VMSA_GPA)."""
RESET_VECTOR = 0xFFFFFFF0
"""Where the first vCPU starts; the others start where the firmware's footer says."""

SEGMENTS = {
    "ES": 0x000,
    "CS": 0x010,
    "SS": 0x020,
    "DS": 0x030,
    "FS": 0x040,
    "GS": 0x050,
    "GDTR": 0x060,
    "LDTR": 0x070,
    "IDTR": 0x080,
    "TR": 0x090,
}
"""u16 selector, u16 attributes (type, S, DPL, P of the descriptor), u32 limit, u64 base."""
REGISTERS = {
    "EFER": 0x0D0,
    "CR4": 0x148,
    "CR0": 0x158,
    "DR7": 0x160,
    "DR6": 0x168,
    "RFLAGS": 0x170,
    "RIP": 0x178,
    "G_PAT": 0x268,
    "RDX": 0x310,
    "SEV_FEATURES": 0x3B0,
    "XCR0": 0x3E8,
}
"""u64 each."""
MXCSR = 0x408
"""u32."""
X87_FCW = 0x410
"""u16."""
