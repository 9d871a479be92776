# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU models of SEV hosts that QEMU has, and the CPUID signatures by which the launch digest knows them.

Source: QEMU, target/i386/cpu.c, builtin_x86_defs (up to version 10.1). A version of a model changes features,
never family, model or stepping.
"""

from dataclasses import dataclass

from tools.pipeline.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CpuModel:
    """One generation: its QEMU model, and everything else that QEMU gives the same signature."""

    name: str
    family: int
    model: int
    stepping: int
    qemu_models: tuple[str, ...]

    @property
    def signature(self) -> int:
        """CPUID Fn0000_0001_EAX, which QEMU leaves in EDX at reset (AMD CPUID specification 25481)."""
        # Importing the library costs a build with nothing to do its tenth.
        from sevsnpmeasure import vcpu_types  # noqa: PLC0415

        return int(vcpu_types.cpu_sig(self.family, self.model, self.stepping))


def _model(name: str, family: int, model: int, stepping: int, *, versions: int, also: str = "") -> CpuModel:
    names = [name, *[f"{name}-v{number}" for number in range(1, versions + 1)], *also.split()]
    return CpuModel(name=name, family=family, model=model, stepping=stepping, qemu_models=tuple(sorted(names)))


CPU_MODELS = (
    _model("EPYC", 23, 1, 2, versions=5, also="EPYC-IBPB"),
    _model("EPYC-Rome", 23, 49, 0, versions=5),
    _model("EPYC-Milan", 25, 1, 1, versions=3),
    _model("EPYC-Genoa", 25, 17, 0, versions=2),
    _model("EPYC-Turin", 26, 0, 0, versions=1),
)
"""In the order of their generations: Naples, Rome, Milan, Genoa, Turin."""


def find(qemu_model: str, *, where: str) -> CpuModel:
    """The generation that a QEMU CPU model belongs to.

    Raises UserError, prefixed with `where`, for one whose signature is not known here: `host` has that of
    whatever machine it runs on.
    """
    for model in CPU_MODELS:
        if qemu_model in model.qemu_models:
            return model
    known = ", ".join(f"{model.name}[-vN]" for model in CPU_MODELS)
    raise UserError(
        f"no launch digest can be computed for CPU model {qemu_model!r}", where=where, hint=f"known: {known}"
    )
