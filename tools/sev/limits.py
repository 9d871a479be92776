# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of guests, in one place for the recipes that ask for them and the launcher that grants them."""

PAGE = 4096
"""Bytes that the secure processor measures at a time."""
FOUR_GIB = 1 << 32
"""The firmware ends here, in guest-physical addresses."""
VCPUS_MAX = 255
"""xAPIC ids have 8 bits, 255 is the broadcast."""
CMDLINE_MAX = 2047
"""COMMAND_LINE_SIZE of x86 Linux is 2048 with the trailing NUL (arch/x86/include/asm/setup.h)."""
ARTIFACT_MAX = 256 << 20
"""Bytes of one artifact."""
MEMORY_MIN_MIB = 128
MEMORY_MAX_MIB = 16 << 20


def memory_mib(text: str) -> int:
    """Guest RAM in MiB from "512M" or "2G"; ValueError says what is allowed."""
    number, unit = text[:-1], text[-1:]
    plain = number.isascii() and number.isdecimal() and len(number) <= 8 and not number.startswith("0")
    if unit not in ("M", "G") or not plain:
        raise ValueError(f'"{text[:80]}" is no memory size: a whole number and M or G, as in "512M"')
    mib = int(number) * (1024 if unit == "G" else 1)
    if not MEMORY_MIN_MIB <= mib <= MEMORY_MAX_MIB:
        raise ValueError(f'"{text}" is outside {MEMORY_MIN_MIB}M…{MEMORY_MAX_MIB // 1024}G')
    return mib
