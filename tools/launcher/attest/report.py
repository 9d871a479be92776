# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The SEV-SNP attestation report: 1184 bytes, every number little-endian.

Layout: AMD 56860, SEV Secure Nested Paging Firmware ABI Specification, section 7.3, table ATTESTATION_REPORT;
TCB_VERSION and its layout for family 1Ah: section 2.2. Offsets and the differences between the versions agree
with virtee/sev (attestation/evidence/snp) and google/go-sev-guest (abi/abi.go). Parsing proves nothing: what
is in a report counts only when its signature has been verified.

Firmware gives meanings to reserved bits as it gets newer, and a report that it signed stays a report: what is
set and means nothing here is named in `unknown`. Only where the fields themselves cannot be told apart (another
version, another processor, another layout of the TCB) is a report refused.
"""

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from tools.launcher.base import encodings
from tools.launcher.base.errors import UserError
from tools.sev import policy as policies

REPORT_SIZE = 0x4A0
SIGNED_SIZE = 0x2A0
"""Bytes 0…0x29F are what SIGNATURE signs."""
VERSIONS = (2, 3, 4, 5)
"""Versions 3 and 4 have the same layout; 5 adds the mitigation vectors."""
ECDSA_P384_SHA384 = 1
"""SIGNATURE_ALGO, chapter 10 of the specification."""
HOST_REQUESTED = 0xFFFFFFFF
"""VMPL of a report that the host asked for, not the guest (SNP_HV_REPORT_REQ)."""
POLICY_DEBUG = 1 << 19
_POLICY_ONE = 1 << 17
_VERSION_MAX = 255
# SMT_EN, TSME_EN, ECC_EN, RAPL_DIS, CIPHERTEXT_HIDING_DRAM_EN, ALIAS_CHECK_COMPLETE, IOMMU_WRITE_SAFE, TIO_EN.
_PLATFORM_BITS = 8
_KEY_INFO_BITS = 5
# An ioctl's answer (SNP_GET_REPORT): MSG_REPORT_RSP, whose report starts at 0x20, in a buffer of 4000 bytes.
_RESPONSE_HEADER = 0x20
_R_OR_S = 72


class SigningKey(IntEnum):
    """SIGNING_KEY, bits 4:2 of the key information at 0x48; 2 to 6 are reserved."""

    VCEK = 0
    VLEK = 1
    NONE = 7


class Product(Enum):
    """Product lines as AMD's key server names them; Genoa's includes Bergamo and Siena."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


@dataclass(frozen=True, kw_only=True)
class Tcb:
    """Security patch levels, 0…255 each; `fmc` exists on Turin only."""

    fmc: int | None = None
    bootloader: int
    tee: int
    snp: int
    microcode: int

    @property
    def parts(self) -> dict[str, int]:
        """The levels by the names that --min-tcb takes, in the order of the specification."""
        named = {
            "fmc": self.fmc,
            "bootloader": self.bootloader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }
        return {name: level for name, level in named.items() if level is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={level}" for name, level in self.parts.items())


@dataclass(frozen=True, kw_only=True)
class FirmwareVersion:
    """SNP firmware version; MAJOR.MINOR is the ABI's."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """An attestation report; the comment behind each field is its offset. `raw` is all of it.

    `product` is None in version 2, which does not name the processor. `cpuid` is family, model, stepping.
    """

    raw: bytes
    version: int  # 0x000
    guest_svn: int  # 0x004
    policy: int  # 0x008
    family_id: bytes  # 0x010
    image_id: bytes  # 0x020
    vmpl: int  # 0x030
    signature_algo: int  # 0x034
    current_tcb: Tcb  # 0x038
    platform_info: int  # 0x040
    author_key_en: bool  # 0x048, bit 0
    mask_chip_key: bool  # 0x048, bit 1
    signing_key: SigningKey  # 0x048, bits 4:2
    report_data: bytes  # 0x050
    measurement: bytes  # 0x090: the launch digest
    host_data: bytes  # 0x0C0
    id_key_digest: bytes  # 0x0E0
    author_key_digest: bytes  # 0x110
    report_id: bytes  # 0x140
    report_id_ma: bytes  # 0x160
    reported_tcb: Tcb  # 0x180
    cpuid: tuple[int, int, int] | None  # 0x188, since version 3
    chip_id: bytes  # 0x1A0
    committed_tcb: Tcb  # 0x1E0
    current: FirmwareVersion  # 0x1E8
    committed: FirmwareVersion  # 0x1EC
    launch_tcb: Tcb  # 0x1F0
    launch_mitigations: int | None  # 0x1F8, since version 5
    current_mitigations: int | None  # 0x200, since version 5
    product: Product | None
    unknown: tuple[str, ...]  # signed, set, and without a meaning to this program

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        return self.raw[:SIGNED_SIZE]

    @property
    def signature(self) -> tuple[int, int]:
        """r and s of the ECDSA signature: two little-endian fields of 72 bytes (chapter 10)."""
        at = SIGNED_SIZE
        r, s = self.raw[at : at + _R_OR_S], self.raw[at + _R_OR_S : at + 2 * _R_OR_S]
        return int.from_bytes(r, "little"), int.from_bytes(s, "little")

    @property
    def debug(self) -> bool:
        """Whether the policy lets the host read and write the guest's memory."""
        return bool(self.policy & POLICY_DEBUG)


def parse_report(data: bytes, *, where: str) -> Report:
    """Parse and check a raw report; UserError says what is wrong and, where that is known, what to do."""
    _check_size(data, where=where)
    version = _u32(data, 0x000)
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        # A small number is a version to come, anything else is no report.
        make = _strange if max(VERSIONS) < version <= _VERSION_MAX else _fault
        raise make(f"report version {version}; known here: {known}", where)
    _check_unsigned(data, where=where)
    key_info = _u32(data, 0x048)
    cpuid = (data[0x188], data[0x189], data[0x18A]) if version >= 3 else None
    product = _product(cpuid, where=where) if cpuid else None
    turin = product is Product.TURIN if cpuid else _looks_like_turin(data[0x1A0:0x1E0])
    tcbs = [_tcb(data, at, turin=turin, where=where) for at in (0x038, 0x180, 0x1E0, 0x1F0)]
    current_tcb, reported_tcb, committed_tcb, launch_tcb = tcbs
    return Report(
        raw=data,
        version=version,
        guest_svn=_u32(data, 0x004),
        policy=_policy(data, where=where),
        family_id=data[0x010:0x020],
        image_id=data[0x020:0x030],
        vmpl=_u32(data, 0x030),
        signature_algo=_u32(data, 0x034),
        current_tcb=current_tcb,
        platform_info=_u64(data, 0x040),
        author_key_en=bool(key_info & 1),
        mask_chip_key=bool(key_info & 2),
        signing_key=_signing_key(key_info, where=where),
        report_data=data[0x050:0x090],
        measurement=data[0x090:0x0C0],
        host_data=data[0x0C0:0x0E0],
        id_key_digest=data[0x0E0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=reported_tcb,
        cpuid=cpuid,
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=committed_tcb,
        current=FirmwareVersion(build=data[0x1E8], minor=data[0x1E9], major=data[0x1EA]),
        committed=FirmwareVersion(build=data[0x1EC], minor=data[0x1ED], major=data[0x1EE]),
        launch_tcb=launch_tcb,
        launch_mitigations=_u64(data, 0x1F8) if version >= 5 else None,
        current_mitigations=_u64(data, 0x200) if version >= 5 else None,
        product=product,
        unknown=_unknown(data, version),
    )


def _strange(what: str, where: str) -> UserError:
    """For what may well be a report, but of a form that came after this program."""
    return UserError(f"cannot read this report: {what}", where=where, hint="a newer sev-launch may know it")


def _fault(what: str, where: str, *, hint: str | None = None) -> UserError:
    """For what is no report."""
    return UserError(f"no attestation report: {what}", where=where, hint=hint)


def _u32(data: bytes, at: int) -> int:
    (value,) = struct.unpack_from("<I", data, at)
    return int(value)


def _u64(data: bytes, at: int) -> int:
    (value,) = struct.unpack_from("<Q", data, at)
    return int(value)


def _check_size(data: bytes, *, where: str) -> None:
    if len(data) == REPORT_SIZE:
        return
    hint = f"it has {REPORT_SIZE} bytes, as the guest's outblob of configfs-tsm has it"
    if len(data) >= _RESPONSE_HEADER + REPORT_SIZE and _u32(data, 4) == REPORT_SIZE:
        # u32 status, u32 size of the report, reserved up to 0x20.
        hint = (
            "this looks like the ioctl's whole answer: cut the report out of it, as in "
            f"`tail -c +{_RESPONSE_HEADER + 1} FILE | head -c {REPORT_SIZE} > report.bin`"
        )
    raise _fault(f"has {len(data)} bytes{encodings.resemblance(data)}", where, hint=hint)


def _check_unsigned(data: bytes, *, where: str) -> None:
    """Behind r and s nothing is signed, so nothing there can come from the firmware."""
    begin = SIGNED_SIZE + 2 * _R_OR_S
    if any(data[begin:]):
        raise _fault(f"bytes {begin:#x} to {REPORT_SIZE - 1:#x}, behind the signature, are not zero", where)


def _unknown(data: bytes, version: int) -> tuple[str, ...]:
    """What is set in reserved places, by name."""
    found = [f"POLICY bit {bit}" for bit in policies.unknown_bits(_u64(data, 0x008), policies.SNP)]
    for name, value, known in (
        ("PLATFORM_INFO", _u64(data, 0x040), _PLATFORM_BITS),
        ("key information", _u32(data, 0x048), _KEY_INFO_BITS),
    ):
        found += [f"{name} bit {bit}" for bit in range(known, 64) if value >> bit & 1]
    for begin, end in (
        (0x04C, 0x050),
        (0x188 if version < 3 else 0x18B, 0x1A0),
        (0x1EB, 0x1EC),
        (0x1EF, 0x1F0),
        (0x1F8 if version < 5 else 0x208, SIGNED_SIZE),
    ):
        if any(data[begin:end]):
            found.append(f"bytes {begin:#x} to {end - 1:#x}" if end - begin > 1 else f"byte {begin:#x}")
    return tuple(found)


def _policy(data: bytes, *, where: str) -> int:
    policy = _u64(data, 0x008)
    if not policy & _POLICY_ONE:
        raise _fault(f"policy {policy:#x} lacks bit 17, which is reserved and must be 1", where)
    return policy


def _signing_key(key_info: int, *, where: str) -> SigningKey:
    value = key_info >> 2 & 7
    try:
        return SigningKey(value)
    except ValueError:
        raise _strange(f"SIGNING_KEY is {value}", where) from None


def _product(cpuid: tuple[int, int, int], *, where: str) -> Product:
    """Product line by CPUID family and model, each with its extension added."""
    family, model, _ = cpuid
    if family == 0x19 and model <= 0x0F:
        return Product.MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return Product.GENOA
    if family == 0x1A and model <= 0x11:
        return Product.TURIN
    raise _strange(f"processor family {family:#x} model {model:#x}", where)


def _looks_like_turin(chip_id: bytes) -> bool:
    """Version 2 does not name the processor; Turin's CHIP_ID has 8 bytes, the others' 64."""
    return any(chip_id[:8]) and not any(chip_id[8:])


def _tcb(data: bytes, at: int, *, turin: bool, where: str) -> Tcb:
    raw = data[at : at + 8]
    if turin:
        tcb = Tcb(fmc=raw[0], bootloader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7])
        reserved = raw[4:7]
    else:
        tcb = Tcb(bootloader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])
        reserved = raw[2:6]
    if any(reserved):
        raise _strange(f"the TCB version at {at:#x} has reserved bytes that are not zero", where)
    return tcb
