# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The CPUID signature of a guest's processor, from a QEMU model's name or as people write it."""

import re

from tools.launcher.base.errors import UserError
from tools.sev import cpu_models
from tools.sev.errors import FormatError


def signature_of(qemu_model: str) -> int:
    """The signature of a QEMU CPU model.

    UserError for `host`, which has that of whatever machine it is, and for every model not known here.
    """
    try:
        return cpu_models.find(qemu_model).signature
    except FormatError as error:
        hint = f"{error.hint}; --cpu-signature names it by the processor's CPUID Fn0000_0001_EAX"
        raise UserError(error.what, hint=hint) from None


def parse_signature(text: str) -> int:
    """A signature as people write it, hexadecimal with 0x or decimal; ValueError when it can be none."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}", text) is None:
        raise ValueError(f"{text[:40]!r} is no number such as 0xa00f11")
    value = int(text, 0 if text.startswith("0x") else 10)
    if not cpu_models.is_signature(value):
        raise ValueError(f"{value:#x} is no CPUID signature of a processor with SEV")
    return value
