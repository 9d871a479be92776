# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guest policies by name, as recipes/guest.toml writes them → the bits that firmware and runtime.toml take.

SEV-SNP Firmware ABI specification (AMD 56860), "Guest Policy"; SEV API specification (AMD 55766), chapter 3,
"Guest Policy". `sev-launch policy` has a table of its own; a test compares the two.
"""

import re
from dataclasses import dataclass

from tools.pipeline.base.toml_reader import Table

_VERSION = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One bit with a name. `when_set` is the name's value when the bit is one: NODBG set is debug = false."""

    name: str
    bit: int
    when_set: bool = True


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The bits of one mode's policy.

    `version` names the lowest firmware version; its major and minor bytes stand at the two shifts. `ones` are
    the bits that must be one in this mode. Every other bit without a flag is reserved and zero.
    """

    version: str
    major_shift: int
    minor_shift: int
    ones: int
    flags: tuple[Flag, ...]


SNP = Layout(
    version="min-abi",
    major_shift=8,
    minor_shift=0,
    # Reserved, must be one, or SNP_LAUNCH_START fails.
    ones=1 << 17,
    flags=(
        Flag(name="smt", bit=16),
        Flag(name="migrate", bit=18),
        Flag(name="debug", bit=19),
        Flag(name="single-socket", bit=20),
        Flag(name="cxl", bit=21),
        Flag(name="aes-256-xts", bit=22),
        Flag(name="rapl", bit=23, when_set=False),
        Flag(name="ciphertext-hiding", bit=24),
        Flag(name="page-swap", bit=25, when_set=False),
    ),
)
_LEGACY_FLAGS = (
    Flag(name="debug", bit=0, when_set=False),
    Flag(name="key-sharing", bit=1, when_set=False),
    Flag(name="send", bit=3, when_set=False),
    Flag(name="send-in-domain-only", bit=4),
    Flag(name="send-to-sev-only", bit=5),
)
SEV = Layout(version="min-api", major_shift=16, minor_shift=24, ones=0, flags=_LEGACY_FLAGS)
# Bit 2 demands SEV-ES; without it the guest would start as plain SEV.
SEV_ES = Layout(version="min-api", major_shift=16, minor_shift=24, ones=1 << 2, flags=_LEGACY_FLAGS)
# By the names of the modes in guest.toml and runtime.toml.
LAYOUTS = {"snp": SNP, "sev-es": SEV_ES, "sev": SEV}


def read(table: Table, layout: Layout) -> int:
    """The policy that a table of names describes; every name must be there, and no other.

    Raises UserError naming file and key.
    """
    text = table.string(layout.version, pattern=_VERSION.pattern, says="a version such as 1.51")
    major, minor = (int(part) for part in text.split("."))
    if max(major, minor) > 0xFF:
        raise table.error(layout.version, f"{text!r} is beyond 255.255, the highest version that fits")
    bits = layout.ones | major << layout.major_shift | minor << layout.minor_shift
    for flag in layout.flags:
        if table.boolean(flag.name) is flag.when_set:
            bits |= 1 << flag.bit
    table.close()
    return bits


def spell(bits: int, layout: Layout) -> str:
    """The names again, on one line, for people who read runtime.toml."""
    major, minor = bits >> layout.major_shift & 0xFF, bits >> layout.minor_shift & 0xFF
    words = [f'{layout.version} = "{major}.{minor}"']
    for flag in layout.flags:
        value = flag.when_set if bits >> flag.bit & 1 else not flag.when_set
        words.append(f"{flag.name} = {'true' if value else 'false'}")
    return ", ".join(words)


def allows_debug(bits: int, layout: Layout) -> bool:
    """Whether the host may read and change the guest's memory through the secure processor."""
    flag = next(flag for flag in layout.flags if flag.name == "debug")
    return bool(bits >> flag.bit & 1) is flag.when_set
