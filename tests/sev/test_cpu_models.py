# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""CPU models: signatures beside the library's, names that are refused."""

import pytest
from sevsnpmeasure import vcpu_types

from tools.sev import cpu_models
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.errors import FormatError


def test_signatures_are_the_librarys() -> None:
    """It lists the models of an older QEMU; what it has, we have, under the same signature."""
    for name, signature in vcpu_types.CPU_SIGS.items():
        assert cpu_models.find(name).signature == signature
    names = [name for model in CPU_MODELS for name in model.qemu_models]
    assert len(set(names)) == len(names)
    assert len(names) > len(vcpu_types.CPU_SIGS)


def test_signatures_as_numbers() -> None:
    """As AMD's documents and `cpuid` print them."""
    assert {model.name: model.signature for model in CPU_MODELS} == {
        "EPYC": 0x800F12,
        "EPYC-Rome": 0x830F10,
        "EPYC-Milan": 0xA00F11,
        "EPYC-Genoa": 0xA10F10,
        "EPYC-Turin": 0xB00F00,
    }
    assert all(cpu_models.is_signature(model.signature) for model in CPU_MODELS)


@pytest.mark.parametrize("value", [0, 1, -1, 0x600F12, 0xA0FF11, 0x10A00F11, 1 << 40])
def test_what_is_no_signature(value: int) -> None:
    assert not cpu_models.is_signature(value)


@pytest.mark.parametrize("name", ["host", "max", "EPYC-v0", "EPYC-v6", "epyc", "Opteron_G5", "EPYC-Rome-v", ""])
def test_unknown_models_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(FormatError, match=r"^guest.toml: CPU model .*known: EPYC\[-vN\], EPYC-Rome\[-vN\]"):
        cpu_models.find(name, where="guest.toml")
