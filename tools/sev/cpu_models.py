# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU models of SEV hosts that QEMU has, and the CPUID signatures by which SEV-ES and SNP measure them.

Families, models and steppings: QEMU, target/i386/cpu.c, builtin_x86_defs (up to version 10.1); a version of a
model changes features, never one of these. Signature: CPUID Fn0000_0001_EAX, which QEMU leaves in EDX at reset
(AMD CPUID specification 25481): extended family in bits 27:20, extended model 19:16, base family 11:8, base
model 7:4, stepping 3:0.
"""

from dataclasses import dataclass

from tools.sev.errors import FormatError


@dataclass(frozen=True, kw_only=True)
class CpuModel:
    """One generation: its QEMU model, and every model that QEMU gives the same signature."""

    name: str
    signature: int
    qemu_models: tuple[str, ...]


def _model(name: str, *, family: int, model: int, stepping: int, versions: int, also: tuple[str, ...] = ()) -> CpuModel:
    """Names: the bare one, -v1 to -v`versions`, and other names for the same processor."""
    names = [name, *(f"{name}-v{number}" for number in range(1, versions + 1)), *also]
    return CpuModel(name=name, signature=_signature(family, model, stepping), qemu_models=tuple(sorted(names)))


def _signature(family: int, model: int, stepping: int) -> int:
    # From family 15 on the base family is 15 and the rest stands in the extended one.
    assert family > 0xF
    return (family - 0xF) << 20 | (model >> 4) << 16 | 0xF << 8 | (model & 0xF) << 4 | stepping


CPU_MODELS = (
    _model("EPYC", family=23, model=1, stepping=2, versions=5, also=("EPYC-IBPB",)),
    _model("EPYC-Rome", family=23, model=49, stepping=0, versions=5),
    _model("EPYC-Milan", family=25, model=1, stepping=1, versions=3),
    _model("EPYC-Genoa", family=25, model=17, stepping=0, versions=2),
    _model("EPYC-Turin", family=26, model=0, stepping=0, versions=1),
)
"""In the order of their generations: Naples, Rome, Milan, Genoa, Turin."""


def find(qemu_model: str, *, where: str | None = None) -> CpuModel:
    """The generation that a QEMU CPU model belongs to.

    FormatError, prefixed with `where`, for one whose signature is not known here: `host` has that of whatever
    machine it runs on.
    """
    for model in CPU_MODELS:
        if qemu_model in model.qemu_models:
            return model
    known = ", ".join(f"{model.name}[-vN]" for model in CPU_MODELS)
    raise FormatError(
        f"CPU model {qemu_model[:80]!r}: its CPUID signature is not known, so no launch digest can be computed",
        where=where,
        hint=f"known: {known}",
    )


def is_signature(value: int) -> bool:
    """Whether a processor with SEV can have this signature.

    Bits 31:28 and 15:12 are reserved, and SEV began with family 0x17.
    """
    family = (value >> 8 & 0xF) + (value >> 20 & 0xFF)
    return 0 <= value < 1 << 28 and not value & 0xF000 and family >= 0x17
