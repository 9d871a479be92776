# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guest policies: the bits that the firmware takes, and the names that people read.

SEV-SNP Firmware ABI specification (AMD 56860), "Guest Policy", 64 bits; SEV API specification (AMD 55766),
chapter 3, "Guest Policy", 32 bits. Some bits forbid (NODBG, NOKS, NOSEND, RAPL_DIS, PAGE_SWAP_DISABLE): here
every name says what is allowed or demanded, so `debug = false` is NODBG set.

Plain classes and no imports: `sev-launch policy` is to start as fast as Python does.
"""

Value = bool | str


class Flag:
    """One bit: its name here and in the specification, the name's value when the bit is one, its meaning.

    `opening`: what the host gets at where the name is true, if that is the guest's memory; else empty.
    """

    __slots__ = ("bit", "name", "opening", "spec", "text", "when_set")

    def __init__(self, name: str, bit: int, spec: str, text: str, *, when_set: bool = True, opening: str = "") -> None:
        self.name = name
        self.bit = bit
        self.spec = spec
        self.text = text
        self.when_set = when_set
        self.opening = opening


class Layout:
    """The policy of one mode, `width` bits; the lowest firmware version's major and minor byte at two shifts.

    `ones` are the bits that must be one, each with the end of the line that says so when it is not; every
    other bit without a flag is reserved and zero.
    """

    __slots__ = ("flags", "major_shift", "minor_shift", "mode", "ones", "version", "version_text", "width")

    def __init__(
        self,
        mode: str,
        *,
        width: int,
        version: str,
        version_text: str,
        major_shift: int,
        minor_shift: int,
        ones: dict[int, str],
        flags: tuple[Flag, ...],
    ) -> None:
        self.mode = mode
        self.width = width
        self.version = version
        self.version_text = version_text
        self.major_shift = major_shift
        self.minor_shift = minor_shift
        self.ones = ones
        self.flags = flags

    def flag(self, name: str) -> Flag | None:
        """The flag of that name."""
        for flag in self.flags:
            if flag.name == name:
                return flag
        return None


_DEBUG = "the host can read and change the guest's memory"
# fmt: off
_SNP_FLAGS = (
    Flag("smt", 16, "SMT", "the host may have simultaneous multithreading on"),
    Flag("migrate", 18, "MIGRATE_MA", "the guest may be given to a migration agent",
         opening="a migration agent that the host chooses can export the guest"),
    Flag("debug", 19, "DEBUG", "the host may read and change the guest's memory", opening=_DEBUG),
    Flag("single-socket", 20, "SINGLE_SOCKET", "the guest must run on one socket"),
    Flag("cxl", 21, "CXL_ALLOW", "the host may have CXL memory or devices; ABI 1.55"),
    Flag("aes-256-xts", 22, "MEM_AES_256_XTS", "memory must be encrypted by AES-256-XTS; ABI 1.55"),
    Flag("rapl", 23, "RAPL_DIS", "the host may measure power (RAPL); false: ABI 1.55", when_set=False),
    Flag("ciphertext-hiding", 24, "CIPHERTEXT_HIDING",
         "the host must not see the memory's ciphertext; ABI 1.55"),
    Flag("page-swap", 25, "PAGE_SWAP_DISABLE",
         "the host may move and swap the guest's pages; false: ABI 1.58", when_set=False),
)
# What each is good for was read from the secure processor's own program (AMD-ASPFW, sev_mcmd.c, LAUNCH_START and
# SEND_START): without bit 5 (SEV) the certificate that a guest is sent to is verified by nobody, and DOMAIN's
# authority is the platform owner's, that is the host's.
_LEGACY_FLAGS = (
    Flag("debug", 0, "NODBG", "the host may read and change the guest's memory", when_set=False, opening=_DEBUG),
    Flag("key-sharing", 1, "NOKS", "other guests may share this guest's key", when_set=False,
         opening="a guest of the host's own can be given this guest's key, and read its memory"),
    Flag("send", 3, "NOSEND", "the guest may be sent to another platform", when_set=False,
         opening="the host can have the guest sent elsewhere"),
    Flag("send-in-domain-only", 4, "DOMAIN", "it may be sent only within its domain"),
    Flag("send-to-sev-only", 5, "SEV", "it may be sent only to one that has SEV"),
)
# fmt: on
ES_BIT = 2
"""SEV API: the guest must be started with SEV-ES."""
SNP = Layout(
    "snp",
    width=64,
    version="min-abi",
    version_text="the lowest SNP firmware ABI",
    major_shift=8,
    minor_shift=0,
    ones={17: ", which is reserved and must be 1"},
    flags=_SNP_FLAGS,
)
SEV_ES = Layout(
    "sev-es",
    width=32,
    version="min-api",
    version_text="the lowest SEV firmware API",
    major_shift=16,
    minor_shift=24,
    ones={ES_BIT: " (ES), so this would be plain SEV"},
    flags=_LEGACY_FLAGS,
)
SEV = Layout(
    "sev",
    width=32,
    version="min-api",
    version_text="the lowest SEV firmware API",
    major_shift=16,
    minor_shift=24,
    ones={},
    flags=_LEGACY_FLAGS,
)
LAYOUTS = {layout.mode: layout for layout in (SNP, SEV_ES, SEV)}
"""By the names that modes have in recipes, runtime.toml and options."""


def decode(bits: int, layout: Layout) -> dict[str, Value]:
    """The names and their values, in the order of the bits; wrong() says what no name stands for."""
    major, minor = bits >> layout.major_shift & 0xFF, bits >> layout.minor_shift & 0xFF
    values: dict[str, Value] = {layout.version: f"{major}.{minor}"}
    for flag in layout.flags:
        values[flag.name] = flag.when_set if bits >> flag.bit & 1 else not flag.when_set
    return values


def spell(bits: int, layout: Layout) -> str:
    """The same on one line, as TOML, for people who read bits."""
    return ", ".join(f"{name} = {toml_value(value)}" for name, value in decode(bits, layout).items())


def toml_value(value: Value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"'


def encode(values: dict[str, Value], layout: Layout) -> int:
    """The bits for some names; ValueError for an unknown name or a value that it cannot have.

    A name that is left out gets the value for which its bit is zero; debugging is off unless asked for.
    """
    bits = 0
    for bit in layout.ones:
        bits |= 1 << bit
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
    parts = text.split(".")
    if len(parts) != 2 or not all(_is_byte(part) for part in parts):
        raise ValueError(f"{layout.version} is a version from 0.0 to 255.255, not {text[:80]!r}")
    return int(parts[0]) << layout.major_shift | int(parts[1]) << layout.minor_shift


def _is_byte(text: str) -> bool:
    """Whether the text is a number from 0 to 255 as people write it: decimal, no sign, no leading zero."""
    plain = text.isascii() and text.isdecimal() and len(text) <= 3
    return plain and int(text) <= 0xFF and (text == "0" or not text.startswith("0"))


def allows_debug(bits: int, layout: Layout) -> bool:
    """Whether the host may read and change the guest's memory through the secure processor."""
    return decode(bits, layout)["debug"] is True


def openings(bits: int, layout: Layout) -> list[tuple[str, str]]:
    """By what names the policy lets the host get at the guest's memory, and how: sentences for people."""
    values = decode(bits, layout)
    found = [(flag.name, flag.opening) for flag in layout.flags if flag.opening and values[flag.name] is True]
    if values.get("send-to-sev-only") is False:
        to = "; to a key of its own too, for nobody checks whose it is, and so read it"
        found = [(name, text + to if name == "send" else text) for name, text in found]
    return found


def wrong(bits: int, layout: Layout) -> list[str]:
    """What the firmware would refuse whatever the host: reserved bits that are not as they must be."""
    found = [f"lacks bit {bit}{text}" for bit, text in sorted(layout.ones.items()) if not bits >> bit & 1]
    if bits >> layout.width:
        found.append(f"does not fit into {layout.width} bits")
    reserved = unknown_bits(bits, layout)
    if layout is SEV and ES_BIT in reserved:
        reserved.remove(ES_BIT)
        found.append(f"has bit {ES_BIT} (ES), which belongs to mode sev-es")
    if reserved:
        numbers = ", ".join(str(bit) for bit in reserved)
        found.append(f"has reserved bits that must be 0: {numbers}")
    return found


def unknown_bits(bits: int, layout: Layout) -> list[int]:
    """The numbers of those bits within the policy's width that are one and mean nothing here."""
    known = 0xFF << layout.major_shift | 0xFF << layout.minor_shift
    for bit in (*layout.ones, *(flag.bit for flag in layout.flags)):
        known |= 1 << bit
    return [bit for bit in range(layout.width) if bits >> bit & 1 and not known >> bit & 1]
