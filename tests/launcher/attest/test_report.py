# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The report parser, on reports of real processors and on ones that are none; and a real chain, verified."""

import base64
import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings, strategies

from tests.launcher.attest.attestation_kit import TURIN, TURIN_CHIP, TURIN_TCB, Draft
from tests.launcher.attest.verify_kit import Desk
from tools.launcher.attest.report import FirmwareVersion, Product, SigningKey, Tcb, parse_report
from tools.launcher.base.errors import UserError

DATA = Path(__file__).with_name("data")
KEY = ec.generate_private_key(ec.SECP384R1())


def real(name: str) -> bytes:
    """A report from tests/launcher/data, whose README names the source."""
    return bytes.fromhex((DATA / name).read_text())


def refusal(data: bytes, *, begin: str = "no attestation report") -> str:
    with pytest.raises(UserError) as caught:
        parse_report(data, where="r")
    assert caught.value.exit_status == 2
    text = str(caught.value)
    assert text.startswith(f"r: {begin}: ")
    return text


def too_new(data: bytes) -> str:
    """The line for a report that came after this program."""
    text = refusal(data, begin="cannot read this report")
    assert text.endswith("; a newer sev-launch may know it")
    return text


def test_a_real_report_of_milan() -> None:
    """Values as microsoft/CCF's tests and snpguest's notation have them."""
    report = parse_report(real("milan/report.hex"), where="r")
    assert (report.version, report.guest_svn, report.policy, report.vmpl) == (3, 2, 0x3001F, 0)
    assert report.measurement.hex().startswith("5feee30d6d7e1a29f403d70a4198237d")
    assert report.host_data.hex().startswith("4f4448c67f3c8dfc")
    assert report.chip_id.hex().endswith("295dbeb19ba5")
    assert report.reported_tcb == Tcb(bootloader=4, tee=0, snp=24, microcode=219)
    assert report.current == report.committed == FirmwareVersion(major=1, minor=55, build=29)
    assert (report.cpuid, report.product) == ((0x19, 1, 1), Product.MILAN)
    assert (report.signing_key, report.mask_chip_key, report.author_key_en) == (SigningKey.VCEK, False, False)
    assert (report.family_id, report.image_id) == (b"\1".ljust(16, b"\0"), b"\2".ljust(16, b"\0"))


def test_a_real_report_in_version_2() -> None:
    report = parse_report(real("milan-v2.hex"), where="r")
    assert (report.version, report.cpuid, report.product) == (2, None, None)
    assert report.current_tcb == Tcb(bootloader=3, tee=0, snp=8, microcode=210)
    assert report.reported_tcb == Tcb(bootloader=3, tee=0, snp=8, microcode=115)
    assert report.current == FirmwareVersion(major=1, minor=52, build=4)


REAL_OPTIONS = {
    "policy": "0x3001f",
    "digest": "5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f98189887920ab2fa0096903a0c23fca1",
    "report-data": "00" * 64,
    "min-tcb": "bootloader=4,tee=0,snp=24,microcode=219",
    "vcek": str(DATA / "milan/vcek.pem"),
    "chain": str(DATA / "milan/chain.pem"),
    "id-key-digest": "0ad79ceb0b648b0e6a90d8aa9f6ea24c33a968b6632085353145e8b19a4741a2dab9ba342e13be4fc0d225e889cc1a58",
    "at": "2026-01-01",
}


def verify_real(desk: Desk, *, raw: bytes | None = None, **options: str) -> Any:
    path = desk.write("real.bin", raw or real("milan/report.hex"))
    words = [word for name, value in (REAL_OPTIONS | options).items() for word in (f"--{name}", value)]
    return desk.call("verify", path, "--unbound", *words)


def test_a_real_report_is_verified_up_to_amds_root(desk: Desk) -> None:
    answer = verify_real(desk)
    assert answer.status == 0, answer.out
    assert answer.err == ""
    assert "AMD's ARK-Milan, SHA-256 69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd" in answer.out
    assert "ARK-Milan → SEV-Milan → SEV-VCEK" in answer.out
    assert answer.out.endswith("\nverified\n")


def test_the_real_report_with_one_thing_else_is_not(desk: Desk) -> None:
    raw = bytearray(real("milan/report.hex"))
    raw[0x93] ^= 1
    changed = bytes(raw)
    digest = changed[0x90:0xC0].hex()
    assert "FAILED       signature " in verify_real(desk, raw=changed, digest=digest).out
    assert "FAILED       validity dates" in verify_real(desk, at="2032-02-01").out
    low: dict[str, Any] = {"min-tcb": "bootloader=4,tee=0,snp=25,microcode=0"}
    assert "FAILED       minimum TCB" in verify_real(desk, **low).out
    ours = desk.write("ours.pem", desk.root.ark.pem)
    assert "FAILED       certificate chain" in verify_real(desk, ark=str(ours)).out


@pytest.mark.parametrize("size", [0, 1, 1183, 1185, 4000])
def test_only_1184_bytes_are_a_report(size: int) -> None:
    assert f"has {size} bytes" in refusal(Draft().raw(KEY)[:size].ljust(size, b"\0"))


def test_other_forms_of_a_report_are_told_apart() -> None:
    raw = Draft().raw(KEY)
    response = struct.pack("<II24x", 0, len(raw)) + raw
    assert "tail -c +33 FILE | head -c 1184" in refusal(response.ljust(4000, b"\0"))
    assert "outblob" in refusal(raw * 2)
    assert parse_report(response[32 : 32 + 1184], where="r").raw == raw
    assert "has 1183 bytes (hexadecimal text of 591 bytes?)" in refusal(raw.hex().encode()[:1182] + b"\n")
    assert "(base64 text of 300 bytes?)" in refusal(base64.b64encode(raw[:300]))
    assert "(PEM: CERTIFICATE)" in refusal((DATA / "milan/vcek.pem").read_bytes())
    assert "(JSON?)" in refusal(b'{"report": "AAAA"}')


@pytest.mark.parametrize("version", [0, 1, 6, 255, 256, 0x02000000])
def test_unknown_versions(version: int) -> None:
    raw = bytearray(Draft().raw(KEY))
    struct.pack_into("<I", raw, 0, version)
    says = too_new if version in (6, 255) else refusal
    assert f"report version {version}; known here: 2, 3, 4, 5" in says(bytes(raw))


RESERVED = {
    2: [(0x4C, 0x50), (0x188, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)],
    3: [(0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)],
    5: [(0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0)],
}


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_each_reserved_byte_is_named(version: int) -> None:
    whole = Draft(version=version).raw(KEY)
    assert parse_report(whole, where="r").unknown == ()
    spans = RESERVED[3 if version == 4 else version]
    for begin, end in spans:
        name = f"byte {begin:#x}" if end - begin == 1 else f"bytes {begin:#x} to {end - 1:#x}"
        for at in range(begin, end):
            assert not whole[at], hex(at)
            raw = bytearray(whole)
            raw[at] = 1
            assert parse_report(bytes(raw), where="r").unknown == (name,)
    for at in set(range(0x1F8, 0x208)) - {at for span in spans for at in range(*span)}:
        raw = bytearray(whole)
        raw[at] = 1
        assert parse_report(bytes(raw), where="r").unknown == ()


def test_nothing_stands_behind_the_signature() -> None:
    whole = Draft().raw(KEY)
    for at in range(0x330, 0x4A0):
        raw = bytearray(whole)
        raw[at] = 1
        assert "bytes 0x330 to 0x49f, behind the signature, are not zero" in refusal(bytes(raw))


def test_each_reserved_bit_is_named() -> None:
    def unknown(**changes: Any) -> tuple[str, ...]:
        return parse_report(Draft(**changes).raw(KEY), where="r").unknown

    for bit in range(8, 64):
        assert unknown(platform_info=1 << bit) == (f"PLATFORM_INFO bit {bit}",)
    for bit in range(5, 32):
        assert unknown(key_info=1 << bit) == (f"key information bit {bit}",)
    for bit in range(26, 64):
        assert unknown(policy=0x20000 | 1 << bit) == (f"POLICY bit {bit}",)
    everything = Draft(platform_info=0b11111111, policy=(1 << 26) - 1, key_info=0b11111).raw(KEY)
    assert parse_report(everything, where="r").signing_key is SigningKey.NONE
    assert parse_report(everything, where="r").unknown == ()


def test_what_cannot_be_read_without_knowing_it() -> None:
    assert "lacks bit 17" in refusal(Draft(policy=0x10000).raw(KEY))
    for value in range(2, 7):
        assert f"SIGNING_KEY is {value}" in too_new(Draft(key_info=value << 2).raw(KEY))


@pytest.mark.parametrize(("turin", "places"), [(False, (2, 3, 4, 5)), (True, (4, 5, 6))])
def test_reserved_levels_of_each_tcb(turin: bool, places: tuple[int, ...]) -> None:
    changes: dict[str, Any] = {"cpuid": TURIN, "chip_id": TURIN_CHIP, "tcb": TURIN_TCB} if turin else {}
    for tcb in (0x38, 0x180, 0x1E0, 0x1F0):
        for place in places:
            raw = bytearray(Draft(**changes).raw(KEY))
            raw[tcb + place] = 1
            assert f"TCB version at {tcb:#x}" in too_new(bytes(raw))


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x00, 0), Product.MILAN),
        ((0x19, 0x0F, 0), Product.MILAN),
        ((0x19, 0x10, 0), Product.GENOA),
        ((0x19, 0x1F, 9), Product.GENOA),
        ((0x19, 0xA0, 2), Product.GENOA),
        ((0x19, 0xAF, 2), Product.GENOA),
        ((0x1A, 0x02, 1), Product.TURIN),
        ((0x1A, 0x11, 0), Product.TURIN),
        ((0x19, 0x20, 0), None),
        ((0x1A, 0x12, 0), None),
        ((0x17, 0x31, 0), None),
        ((0, 0, 0), None),
    ],
)
def test_processors(cpuid: tuple[int, int, int], product: Product | None) -> None:
    tcb = TURIN_TCB if product is Product.TURIN else Draft().tcb
    raw = Draft(cpuid=cpuid, tcb=tcb).raw(KEY)
    if product is None:
        assert f"processor family {cpuid[0]:#x} model {cpuid[1]:#x};" in too_new(raw)
    else:
        assert parse_report(raw, where="r").product is product


def test_numbers_are_little_endian() -> None:
    report = parse_report(Draft(guest_svn=0x01020304, vmpl=3, version=5).raw(KEY), where="r")
    assert report.raw[4:8] == b"\4\3\2\1"
    assert (report.guest_svn, report.vmpl) == (0x01020304, 3)
    assert (report.launch_mitigations, report.current_mitigations) == (3, 7)


@settings(max_examples=300, deadline=None)
@given(
    strategies.binary(max_size=40),
    strategies.lists(strategies.tuples(strategies.integers(0, 1183), strategies.integers(0, 255)), max_size=6),
)
def test_any_bytes_are_a_report_or_a_refusal(head: bytes, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(Draft().raw(KEY))
    raw[: len(head)] = head
    for at, value in changes:
        raw[at] = value
    for data in (bytes(raw), head):
        with contextlib.suppress(UserError):
            assert parse_report(data, where="r").raw == data
