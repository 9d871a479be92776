# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write them."""

import re

MEMORY_MIN_MIB = 128
MEMORY_MAX_MIB = 16 * 1024 * 1024
_SIZE = re.compile(r"([1-9][0-9]{0,7})([MG])")


def parse_memory(text: str) -> int:
    """Guest RAM in MiB from "512M" or "2G"; ValueError says what is allowed."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is no memory size: a whole number and M or G, as in "512M"')
    mib = int(match[1]) * (1024 if match[2] == "G" else 1)
    if not MEMORY_MIN_MIB <= mib <= MEMORY_MAX_MIB:
        raise ValueError(f'"{text}" is outside {MEMORY_MIN_MIB}M…{MEMORY_MAX_MIB // 1024}G')
    return mib
