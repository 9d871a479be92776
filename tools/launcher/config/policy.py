# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guest policies: the bits that the firmware takes, and the names that people read.

SEV-SNP Firmware ABI specification (AMD 56860), "Guest Policy", 64 bits; SEV API specification (AMD 55766),
chapter 3, "Guest Policy", 32 bits. Some bits forbid (NODBG, NOKS, NOSEND, RAPL_DIS, PAGE_SWAP_DISABLE): here
every name says what is allowed or demanded, so `debug = false` is NODBG set.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

Value = bool | str
_VERSION = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One bit: its name here and in the specification, the name's value when the bit is one, its meaning."""

    name: str
    bit: int
    spec: str
    when_set: bool = True
    text: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The policy of one mode, `width` bits; the lowest firmware version's major and minor byte at two shifts.

    `ones` are the bits that must be one, each with the end of the line that says so when it is not; every
    other bit without a flag is reserved and zero.
    """

    mode: str
    width: int
    version: str
    version_text: str
    major_shift: int
    minor_shift: int
    ones: Mapping[int, str]
    flags: tuple[Flag, ...]

    def flag(self, name: str) -> Flag | None:
        """The flag of that name."""
        return next((flag for flag in self.flags if flag.name == name), None)


# fmt: off
_SNP_FLAGS = (
    Flag(name="smt", bit=16, spec="SMT", text="the host may have simultaneous multithreading on"),
    Flag(name="migrate", bit=18, spec="MIGRATE_MA", text="the guest may be given to a migration agent"),
    Flag(name="debug", bit=19, spec="DEBUG", text="the host may read and change the guest's memory"),
    Flag(name="single-socket", bit=20, spec="SINGLE_SOCKET", text="the guest must run on one socket"),
    Flag(name="cxl", bit=21, spec="CXL_ALLOW", text="the host may have CXL memory or devices; ABI 1.55"),
    Flag(name="aes-256-xts", bit=22, spec="MEM_AES_256_XTS",
         text="memory must be encrypted by AES-256-XTS; ABI 1.55"),
    Flag(name="rapl", bit=23, spec="RAPL_DIS", when_set=False,
         text="the host may measure power (RAPL); false: ABI 1.55"),
    Flag(name="ciphertext-hiding", bit=24, spec="CIPHERTEXT_HIDING",
         text="the host must not see the memory's ciphertext; ABI 1.55"),
    Flag(name="page-swap", bit=25, spec="PAGE_SWAP_DISABLE", when_set=False,
         text="the host may move and swap the guest's pages; false: ABI 1.58"),
)
_LEGACY_FLAGS = (
    Flag(name="debug", bit=0, spec="NODBG", when_set=False,
         text="the host may read and change the guest's memory"),
    Flag(name="key-sharing", bit=1, spec="NOKS", when_set=False,
         text="other guests may share this guest's key"),
    Flag(name="send", bit=3, spec="NOSEND", when_set=False, text="the guest may be sent to another platform"),
    Flag(name="send-in-domain-only", bit=4, spec="DOMAIN", text="it may be sent only within its domain"),
    Flag(name="send-to-sev-only", bit=5, spec="SEV", text="it may be sent only to one that has SEV"),
)
# fmt: on
_ES_BIT = 2
SNP = Layout(
    mode="snp",
    width=64,
    version="min-abi",
    version_text="the lowest SNP firmware ABI",
    major_shift=8,
    minor_shift=0,
    ones={17: ", which is reserved and must be 1"},
    flags=_SNP_FLAGS,
)
SEV_ES = Layout(
    mode="sev-es",
    width=32,
    version="min-api",
    version_text="the lowest SEV firmware API",
    major_shift=16,
    minor_shift=24,
    ones={_ES_BIT: " (ES), so this would be plain SEV"},
    flags=_LEGACY_FLAGS,
)
SEV = Layout(
    mode="sev",
    width=32,
    version="min-api",
    version_text="the lowest SEV firmware API",
    major_shift=16,
    minor_shift=24,
    ones={},
    flags=_LEGACY_FLAGS,
)
# By the names that modes have in runtime.toml and options.
LAYOUTS = {layout.mode: layout for layout in (SNP, SEV_ES, SEV)}


def decode(bits: int, layout: Layout) -> dict[str, Value]:
    """The names and their values, in the order of the bits; wrong() says what no name stands for."""
    major, minor = bits >> layout.major_shift & 0xFF, bits >> layout.minor_shift & 0xFF
    values: dict[str, Value] = {layout.version: f"{major}.{minor}"}
    for flag in layout.flags:
        values[flag.name] = flag.when_set if bits >> flag.bit & 1 else not flag.when_set
    return values


def encode(values: Mapping[str, Value], layout: Layout) -> int:
    """The bits for some names; ValueError for an unknown name or a value that it cannot have.

    A name that is left out is as its bit is when it is zero, but for debugging, which is never on unasked.
    """
    bits = sum(1 << bit for bit in layout.ones)
    for name, value in {"debug": False, **values}.items():
        flag = layout.flag(name)
        if flag is not None:
            if not isinstance(value, bool):
                raise ValueError(f"{name} is true or false, not {value!r}")
            bits |= (value is flag.when_set) << flag.bit
        elif name == layout.version:
            bits |= _version_bits(str(value), layout)
        else:
            known = ", ".join([layout.version, *(flag.name for flag in layout.flags)])
            raise ValueError(f"{name!r} is no name of mode {layout.mode}; known: {known}")
    return bits


def _version_bits(text: str, layout: Layout) -> int:
    match = _VERSION.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > 0xFF:
        raise ValueError(f"{layout.version} is a version from 0.0 to 255.255, not {text[:80]!r}")
    return int(match[1]) << layout.major_shift | int(match[2]) << layout.minor_shift


def allows_debug(bits: int, layout: Layout) -> bool:
    """Whether the host may read and change the guest's memory through the secure processor."""
    return decode(bits, layout)["debug"] is True


def wrong(bits: int, layout: Layout) -> list[str]:
    """What the firmware would refuse whatever the host: reserved bits that are not as they must be."""
    known = 0xFF << layout.major_shift | 0xFF << layout.minor_shift
    for bit in (*layout.ones, *(flag.bit for flag in layout.flags)):
        known |= 1 << bit
    found = [f"lacks bit {bit}{text}" for bit, text in sorted(layout.ones.items()) if not bits >> bit & 1]
    if bits >> layout.width:
        found.append(f"does not fit into {layout.width} bits")
    reserved = [bit for bit in range(layout.width) if bits >> bit & 1 and not known >> bit & 1]
    if layout is SEV and _ES_BIT in reserved:
        reserved.remove(_ES_BIT)
        found.append(f"has bit {_ES_BIT} (ES), which belongs to mode sev-es")
    if reserved:
        numbers = ", ".join(str(bit) for bit in reserved)
        found.append(f"has reserved bits that must be 0: {numbers}")
    return found
