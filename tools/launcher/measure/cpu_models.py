# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""CPUID signatures of QEMU's models of SEV hosts: what SEV-ES and SNP measure of a CPU model.

Families, models and steppings: QEMU, target/i386/cpu.c, builtin_x86_defs. Signature: CPUID Fn0000_0001_EAX
(AMD CPUID specification 25481): extended family in bits 27:20, extended model 19:16, base family 11:8, base
model 7:4, stepping 3:0.
"""

import re
from dataclasses import dataclass

from tools.launcher.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CpuModel:
    """A generation: `versions` is the highest N of its -vN, `aliases` are other names for the same CPU."""

    signature: int
    versions: int
    aliases: tuple[str, ...] = ()


CPU_MODELS = {
    "EPYC": CpuModel(signature=0x800F12, versions=5, aliases=("EPYC-IBPB",)),
    "EPYC-Rome": CpuModel(signature=0x830F10, versions=5),
    "EPYC-Milan": CpuModel(signature=0xA00F11, versions=3),
    "EPYC-Genoa": CpuModel(signature=0xA10F10, versions=2),
    "EPYC-Turin": CpuModel(signature=0xB00F00, versions=1),
}
_HINT = "--cpu-signature names it by the processor's CPUID Fn0000_0001_EAX"


def qemu_names(name: str) -> list[str]:
    """Every QEMU model with the signature of CPU_MODELS[name]."""
    model = CPU_MODELS[name]
    return sorted([name, *model.aliases, *(f"{name}-v{n}" for n in range(1, model.versions + 1))])


def signature_of(qemu_model: str) -> int:
    """The signature of a QEMU CPU model.

    UserError for `host`, which has that of whatever machine it is, and for every model not known here.
    """
    for name, model in CPU_MODELS.items():
        if qemu_model in qemu_names(name):
            return model.signature
    known = ", ".join(f"{name}[-vN]" for name in CPU_MODELS)
    raise UserError(f"CPU model {qemu_model!r}: its CPUID signature is not known", hint=f"known are {known}; {_HINT}")


def parse_signature(text: str) -> int:
    """A signature as people write it, hexadecimal with 0x or decimal; ValueError when it can be none.

    Bits 31:28 and 15:12 are reserved, and SEV began with family 0x17.
    """
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}", text) is None:
        raise ValueError(f"{text[:40]!r} is no number such as 0xa00f11")
    value = int(text, 0 if text.startswith("0x") else 10)
    family = (value >> 8 & 0xF) + (value >> 20 & 0xFF)
    if value >> 28 or value & 0xF000 or family < 0x17:
        raise ValueError(f"{value:#x} is no CPUID signature of a processor with SEV")
    return value
