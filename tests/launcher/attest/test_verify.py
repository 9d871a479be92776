# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify REPORT`: reports under a root of our own, whole and broken in each field."""

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.launcher.attest.attestation_kit import TCB, TURIN, TURIN_CHIP, TURIN_TCB
from tests.launcher.attest.verify_kit import NONCE, Desk, draft, snp_digest
from tests.launcher.conftest import REPOSITORY
from tools.launcher.attest.certificates import AMD_ROOTS

MANDATORY = [
    "launch digest",
    "workload",
    "policy",
    "debugging",
    "VMPL",
    "report data",
    "minimum TCB",
    "signature",
    "certificate",
    "certificate chain",
    "root of trust",
    "validity dates",
]
OPTIONAL = [
    "host data",
    "ID key digest",
    "author key digest",
    "family ID",
    "image ID",
    "guest SVN",
    "reserved bits",
    "revocation",
]


def test_a_whole_report_is_verified(desk: Desk) -> None:
    outcome = desk.verify(draft())
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.of("ok") == [*MANDATORY[:7], "reserved bits", *MANDATORY[7:]]
    assert outcome.of("not checked") == [name for name in OPTIONAL if name != "reserved bits"]
    assert outcome.detail("launch digest") == "Milan, 4 vCPUs"
    assert "none of AMD's roots" in outcome.detail("root of trust")
    assert desk.root.ark.certificate.subject != desk.root.ask.certificate.subject
    report = outcome.document["report"]
    assert (report["policy"], report["vmpl"], report["product"]) == (0x30000, 0, "Milan")
    assert report["reported_tcb"] == TCB
    assert (report["current"], report["committed"]) == ("1.55.21", "1.55.20")


def test_the_documentation_lists_the_same_checks_and_roots() -> None:
    text = (REPOSITORY / "docs/attestation.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| (\*\*must\*\*|) ?\| [^|]", text, re.MULTILINE)
    assert [name for name, must in rows if must] == MANDATORY
    optional = ", ".join(name for name, must in rows if not must)
    for name in OPTIONAL:
        assert name.removesuffix(" digest") in optional
    assert re.findall(r"^\| (ARK-\w+) \| `([0-9a-f]+)` \|$", text, re.MULTILINE) == [
        (name, fingerprint) for fingerprint, name in AMD_ROOTS.items()
    ]


def test_the_lines_for_people(desk: Desk) -> None:
    answer = desk.call("verify", *desk.words(draft()))
    lines = answer.out.splitlines()
    assert (answer.status, answer.err) == (0, "")
    assert lines[0] == "ok           launch digest      Milan, 4 vCPUs"
    assert lines[-1] == "verified"
    assert [line[13:32].strip() for line in lines[:-1]] == MANDATORY[:7] + OPTIONAL[:7] + MANDATORY[7:] + OPTIONAL[7:]
    answer = desk.call("verify", *desk.words(draft(vmpl=1), without=("min-tcb",)))
    assert answer.status == 1
    assert "FAILED       VMPL               1, expected 0\n" in answer.out
    assert answer.out.splitlines()[-1] == "not verified: VMPL does not hold; minimum TCB not checked"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"measurement": snp_digest("Milan", 4)[:-1] + b"\0"}, "launch digest"),
        ({"policy": 0x20000}, "policy"),
        ({"policy": 0x30001}, "policy"),
        ({"vmpl": 1}, "VMPL"),
        ({"vmpl": 0xFFFFFFFF}, "VMPL"),
        ({"report_data": NONCE[:-1] + b"\0"}, "report data"),
        ({"launch_tcb": TCB | {"snp": 23}}, "minimum TCB"),
        ({"chip_id": bytes(range(2, 66))}, "certificate"),
        ({"chip_id": bytes(64)}, "certificate"),
        ({"algorithm": 2}, "signature"),
        ({"algorithm": 0}, "signature"),
        ({"key_info": 0b10}, "signature"),  # MASK_CHIP_KEY
        ({"key_info": 7 << 2}, "signature"),  # SIGNING_KEY: none
        ({"key_info": 1 << 2}, "signature"),  # SIGNING_KEY: VLEK
        ({"cpuid": (0x19, 0x11, 0)}, "certificate"),  # Genoa
    ],
)
def test_one_other_field_fails_its_own_check(desk: Desk, changes: dict[str, Any], check: str) -> None:
    outcome = desk.verify(draft(**changes))
    assert (outcome.status, outcome.failed) == (1, [check])
    assert outcome.document["reasons"][0] == f"{check} does not hold"


def test_reasons_that_people_need(desk: Desk) -> None:
    assert "the host asked for this report" in desk.verify(draft(vmpl=0xFFFFFFFF)).detail("VMPL")
    assert "MASK_CHIP_KEY" in desk.verify(draft(key_info=2)).detail("signature")
    assert "masked by the host" in desk.verify(draft(chip_id=bytes(64))).detail("certificate")
    assert "signed by a VLEK" in desk.verify(draft(key_info=4)).detail("signature")


@pytest.mark.parametrize("part", TCB)
def test_each_level_of_the_minimum_tcb_counts(desk: Desk, part: str) -> None:
    for change, status in ((0, 0), (-1, 0), (1, 1)):
        levels = {name: level + change * (name == part) for name, level in TCB.items()}
        wanted = ",".join(f"{name}={max(level, 0)}" for name, level in levels.items())
        outcome = desk.verify(draft(), "--min-tcb", wanted)
        assert (outcome.status, outcome.failed) == (status, ["minimum TCB"] * status)


@pytest.mark.parametrize("part", TCB)
def test_each_level_of_the_certificate_must_be_the_reports(desk: Desk, part: str) -> None:
    for change in (-1, 1):
        other = desk.root.vcek(tcb=TCB | {part: TCB[part] + change})
        outcome = desk.verify(draft(), vcek=other.der)
        assert (outcome.status, outcome.failed) == (1, ["certificate"])
        assert f"its {part} level is {TCB[part] + change}" in outcome.detail("certificate")


@pytest.mark.parametrize(
    ("option", "field", "size"),
    [
        ("--host-data", "host_data", 32),
        ("--id-key-digest", "id_key_digest", 48),
        ("--author-key-digest", "author_key_digest", 48),
        ("--family-id", "family_id", 16),
        ("--image-id", "image_id", 16),
    ],
)
def test_what_is_only_checked_when_asked_for(desk: Desk, option: str, field: str, size: int) -> None:
    name = option.removeprefix("--").replace("-", " ").replace("id ", "ID ").replace(" id", " ID")
    value = bytes(range(size))
    right = desk.verify(draft(**{field: value}), option, value.hex().upper())
    assert right.status == 0
    assert name in right.of("ok")
    for wrong in (value[:-1] + b"\0", bytes(size)):
        outcome = desk.verify(draft(**{field: wrong}), option, value.hex())
        assert (outcome.status, outcome.failed) == (1, [name])
    shown = desk.verify(draft(**{field: value}))
    assert shown.status == 0
    assert shown.detail(name) == value.hex()


def test_guest_svn(desk: Desk) -> None:
    assert desk.verify(draft(guest_svn=2), "--min-svn", "2").status == 0
    outcome = desk.verify(draft(guest_svn=2), "--min-svn", "3")
    assert (outcome.status, outcome.failed) == (1, ["guest SVN"])


def test_debugging_is_refused_unless_expected(desk: Desk) -> None:
    debug = draft(policy=0xB0000)
    outcome = desk.verify(debug)
    assert (outcome.status, outcome.failed) == (1, ["policy", "debugging"])
    outcome = desk.verify(debug, "--policy", "0xb0000")
    assert outcome.status == 0
    assert "the host can read and change" in outcome.detail("debugging")
    assert "the host can read and change" in outcome.err
    # Expected on, but off: not what was expected.
    assert desk.verify(draft(), "--policy", "0xb0000").failed == ["policy"]


def test_a_migration_agent_is_an_opening(desk: Desk) -> None:
    said = "open to the host: migrate: a migration agent that the host chooses can export the guest"
    outcome = desk.verify(draft(policy=0x70000), "--policy", "0x70000")
    assert outcome.status == 0
    assert outcome.detail("policy") == f"0x70000; {said}"
    assert "open to its host: migrate" in outcome.err
    assert desk.verify(draft()).detail("policy") == "0x30000"


def test_policy_in_either_notation(desk: Desk) -> None:
    assert desk.verify(draft(policy=0x70000), "--policy", "0x70000").status == 0
    assert desk.verify(draft(policy=0x70000), "--policy", str(0x70000)).status == 0


def test_what_firmware_of_turin_sets_today(desk: Desk) -> None:
    """PLATFORM_INFO of a real report in version 5: SMT_EN, ECC_EN, ALIAS_CHECK_COMPLETE, IOMMU_WRITE_SAFE."""
    turin = draft(version=5, cpuid=TURIN, chip_id=TURIN_CHIP, tcb=TURIN_TCB, platform_info=0x65)
    vcek = desk.root.vcek(tcb=TURIN_TCB, product="Turin-B0", hwid=TURIN_CHIP[:8])
    outcome = desk.verify(
        turin, "--min-tcb", "fmc=0,bootloader=0,tee=0,snp=0,microcode=0", "--refuse-unknown", vcek=vcek.der
    )
    assert outcome.status == 0
    assert outcome.detail("reserved bits") == "none set"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"platform_info": 0x100}, "PLATFORM_INFO bit 8"),
        ({"platform_info": 1 << 63}, "PLATFORM_INFO bit 63"),
        ({"key_info": 1 << 5}, "key information bit 5"),
        ({"version": 5, "patches": {0x208: b"\1"}}, "bytes 0x208 to 0x29f"),
        ({"patches": {0x4C: b"\1"}}, "bytes 0x4c to 0x4f"),
    ],
)
def test_bits_that_came_after_this_program(desk: Desk, changes: dict[str, Any], name: str) -> None:
    """The firmware signed them: named, and refused by who wants that."""
    outcome = desk.verify(draft(**changes))
    assert (outcome.status, outcome.failed) == (0, [])
    assert outcome.detail("reserved bits") == f"set, with a meaning not known here: {name}"
    assert outcome.document["report"]["unknown"] == [name]
    outcome = desk.verify(draft(**changes), "--refuse-unknown")
    assert (outcome.status, outcome.failed) == (1, ["reserved bits"])
    assert name in outcome.detail("reserved bits")
    assert desk.verify(draft(), "--refuse-unknown").status == 0


def test_policy_bits_that_came_after_this_program(desk: Desk) -> None:
    """The whole policy is compared, whatever its bits mean."""
    new = draft(policy=0x4030000)
    assert desk.verify(new).failed == ["policy"]
    outcome = desk.verify(new, "--policy", "0x4030000")
    assert outcome.status == 0
    assert outcome.detail("reserved bits").endswith(": POLICY bit 26")


def test_several_findings_are_several_lines(desk: Desk) -> None:
    other = desk.root.vcek(tcb=TCB | {"tee": 9, "snp": 7}).der
    lines = desk.call("verify", *desk.words(draft(), vcek=other)).out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "FAILED       certificate " in line]
    assert lines[at].endswith("  its tee level is 9, the report's 1")
    assert lines[at + 1] == " " * 32 + "its snp level is 7, the report's 24"
    assert desk.verify(draft(), vcek=other).detail("certificate").count("; ") == 1


def test_expected_vmpl(desk: Desk) -> None:
    assert desk.verify(draft(vmpl=2), "--vmpl", "2").status == 0
    assert desk.verify(draft(), "--vmpl", "2").failed == ["VMPL"]


@pytest.mark.parametrize(
    ("option", "check"),
    [
        ("report-data", "report data"),
        ("min-tcb", "minimum TCB"),
        ("vcek", "signature"),
        ("ask", "certificate chain"),
        ("ark", "root of trust"),
        ("unbound", "workload"),
    ],
)
def test_what_was_not_checked_is_never_verified(desk: Desk, option: str, check: str) -> None:
    outcome = desk.verify(draft(), without=(option,))
    assert (outcome.status, outcome.failed) == (1, [])
    assert check in outcome.of("not checked")
    assert f"{check} not checked" in outcome.document["reasons"]


def test_without_a_certificate_the_line_says_where_it_is(desk: Desk) -> None:
    said = desk.verify(draft(), without=("vcek",)).detail("signature")
    assert f"https://kdsintf.amd.com/vcek/v1/Milan/{bytes(range(1, 65)).hex()}" in said
    assert said.endswith("?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219")
    turin = draft(cpuid=TURIN, chip_id=TURIN_CHIP, tcb=TURIN_TCB)
    outcome = desk.verify(turin, "--min-tcb", "fmc=0,bootloader=0,tee=0,snp=0,microcode=0", without=("vcek",))
    assert "/Turin/0102030405060708?fmcSPL=01&blSPL=04" in outcome.detail("signature")


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_known_version(desk: Desk, version: int) -> None:
    outcome = desk.verify(draft(version=version))
    assert outcome.status == 0
    report = outcome.document["report"]
    assert report["cpuid"] == (None if version == 2 else [0x19, 1, 1])
    assert report["current_mitigations"] == (7 if version == 5 else None)


@pytest.mark.parametrize("version", [2, 5])
def test_turin_has_another_tcb(desk: Desk, version: int) -> None:
    turin = draft(version=version, cpuid=TURIN, chip_id=TURIN_CHIP, tcb=TURIN_TCB)
    vcek = desk.root.vcek(tcb=TURIN_TCB, product="Turin-B0", hwid=TURIN_CHIP[:8])
    minimum = ",".join(f"{part}={level}" for part, level in TURIN_TCB.items())
    assert desk.verify(turin, "--min-tcb", minimum, vcek=vcek.der).status == 0
    too_high = minimum.replace("fmc=1", "fmc=2")
    assert desk.verify(turin, "--min-tcb", too_high, vcek=vcek.der).failed == ["minimum TCB"]
    for tcb in (TURIN_TCB | {"fmc": 0}, TCB):
        other = desk.root.vcek(tcb=tcb, product="Turin-B0", hwid=TURIN_CHIP[:8])
        outcome = desk.verify(turin, "--min-tcb", minimum, vcek=other.der)
        assert outcome.failed == ["certificate"]
        assert "its fmc level is" in outcome.detail("certificate")
    assert "must name exactly fmc, bootloader" in desk.refused(turin, vcek=vcek.der)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=strategies.integers(0, 8 * 0x330 - 1))
def test_no_flipped_bit_is_verified(desk: Desk, bit: int) -> None:
    """Of the signed bytes and of r and s."""
    raw = bytearray(draft().raw(desk.root.leaf_key))
    raw[bit // 8] ^= 1 << bit % 8
    answer = desk.call("verify", *desk.words(bytes(raw)))
    assert answer.status in (1, 2)
    assert "Traceback" not in answer.err
    assert not answer.out.endswith("\nverified\n")
