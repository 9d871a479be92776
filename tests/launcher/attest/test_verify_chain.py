# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify`: certificates that are not what they should be, one thing wrong at a time."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import HealthCheck, given, settings, strategies

from tests.launcher.attest.attestation_kit import (
    BEGIN,
    CHIP,
    END,
    TCB,
    Draft,
    integer,
    issue,
    leaf_extensions,
    revocation_list,
    rsa_key,
)
from tests.launcher.attest.verify_kit import NONCE, Desk, Outcome
from tools.launcher.attest.certificates import AMD_ROOTS

REPORT = Draft(report_data=NONCE)
VLEK = Draft(report_data=NONCE, key_info=1 << 2)


def other_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def test_another_chips_key_did_not_sign(desk: Desk) -> None:
    outcome = desk.verify(REPORT, vcek=desk.root.vcek(key=other_key()).der)
    assert (outcome.status, outcome.failed) == (1, ["signature"])


@pytest.mark.parametrize("at", [0x2A0, 0x2A0 + 47, 0x2A0 + 72, 0x2A0 + 72 + 47])
def test_one_bit_of_the_signature(desk: Desk, at: int) -> None:
    raw = bytearray(REPORT.raw(desk.root.leaf_key))
    raw[at] ^= 1
    assert desk.verify(bytes(raw)).failed == ["signature"]


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_signature_that_is_no_pair_of_numbers_in_range(desk: Desk, fill: bytes) -> None:
    raw = REPORT.raw(desk.root.leaf_key)
    assert desk.verify(raw[:0x2A0] + fill * 144 + raw[0x330:]).failed == ["signature"]


def test_a_key_of_another_kind(desk: Desk) -> None:
    small = ec.generate_private_key(ec.SECP256R1())
    assert desk.verify(REPORT, vcek=desk.root.vcek(key=small).der).failed == ["signature"]
    assert desk.verify(REPORT, vcek=desk.root.vcek(key=desk.root.other_key).der).failed == ["signature"]


def forged_ask(desk: Desk) -> dict[str, bytes]:
    root = desk.root
    ask = issue(root.ask.key, "SEV-Milan", by=root.ark, signer=root.other_key)
    return {"ask": ask.pem}


def forged_ark(desk: Desk) -> dict[str, bytes]:
    root = desk.root
    return {"ark": issue(root.ark.key, "ARK-Milan", signer=root.other_key).pem}


def forged_vcek(desk: Desk) -> dict[str, bytes]:
    return {"vcek": desk.root.vcek(signer=desk.root.other_key).der}


def ark_of_the_same_name(desk: Desk) -> dict[str, bytes]:
    return {"ark": issue(desk.root.other_key, "ARK-Milan").pem}


def ark_that_is_not_its_own_issuer(desk: Desk) -> dict[str, bytes]:
    root = desk.root
    ark = issue(root.ark.key, "ARK-Milan", by=issue(root.other_key, "Somebody"))
    return {"ark": ark.pem}


def vcek_without_an_ask(desk: Desk) -> dict[str, bytes]:
    return {"vcek": desk.root.vcek(by=desk.root.ark).der}


def ask_that_is_no_authority(desk: Desk) -> dict[str, bytes]:
    root = desk.root
    return {"ask": issue(root.ask.key, "SEV-Milan", by=root.ark, ca=False).pem}


def ark_that_is_no_authority(desk: Desk) -> dict[str, bytes]:
    return {"ark": issue(desk.root.ark.key, "ARK-Milan", ca=False).pem}


def vcek_in_place_of_the_ask(desk: Desk) -> dict[str, bytes]:
    return {"ask": desk.root.vcek().pem}


def swapped(desk: Desk) -> dict[str, bytes]:
    return {"ask": desk.root.ark.pem, "ark": desk.root.ask.pem}


def ask_with_a_short_key(desk: Desk) -> dict[str, bytes]:
    ask = issue(rsa_key(2048), "SEV-Milan", by=desk.root.ark)
    return {"ask": ask.pem, "vcek": desk.root.vcek(by=ask).der}


def vcek_signed_with_pkcs1(desk: Desk) -> dict[str, bytes]:
    return {"vcek": desk.root.vcek(pss=padding.PKCS1v15()).der}


def vcek_with_another_salt(desk: Desk) -> dict[str, bytes]:
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=32)
    return {"vcek": desk.root.vcek(pss=pss).der}


@pytest.mark.parametrize(
    "broken",
    [
        forged_ask, forged_ark, forged_vcek, ark_of_the_same_name, ark_that_is_not_its_own_issuer,
        vcek_without_an_ask, ask_that_is_no_authority, ark_that_is_no_authority, vcek_in_place_of_the_ask,
        swapped, ask_with_a_short_key, vcek_signed_with_pkcs1, vcek_with_another_salt,
    ],
)  # fmt: skip
def test_a_broken_chain(desk: Desk, broken: Callable[[Desk], dict[str, Any]]) -> None:
    assert desk.verify(REPORT).status == 0
    outcome = desk.verify(REPORT, **broken(desk))
    assert (outcome.status, outcome.failed) == (1, ["certificate chain"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"product": "Genoa"}, "it is for Genoa, the report for Milan"),
        ({"product": "Milano"}, "'Milano' is none of Milan, Genoa, Turin"),
        ({"product": "Rome-B0"}, "is none of"),
        ({"product": "Milan\n"}, "is none of"),
        ({"product": "Turin-B0"}, "it is for Turin-B0, the report for Milan"),
        ({"hwid": CHIP[:-1] + b"\0"}, "another chip's"),
        ({"hwid": CHIP[:8]}, "HWID of 64 bytes"),
        ({"hwid": None}, "HWID of 64 bytes"),
        ({"csp": "somebody"}, "no CSP_ID"),
        ({"common": "SEV-VLEK"}, "its subject is SEV-VLEK"),
    ],
)
def test_a_certificate_that_is_not_for_this_report(desk: Desk, changes: dict[str, Any], said: str) -> None:
    outcome = desk.verify(REPORT, vcek=desk.root.vcek(**changes).der)
    assert (outcome.status, outcome.failed) == (1, ["certificate"])
    assert said in outcome.detail("certificate")


def test_version_2_does_not_name_the_product(desk: Desk) -> None:
    old = Draft(report_data=NONCE, version=2)
    for product, status in (("Milan-B0", 0), ("Genoa", 0), ("Turin-B0", 1)):
        outcome = desk.verify(old, vcek=desk.root.vcek(product=product).der)
        assert (outcome.status, outcome.failed) == (status, ["certificate"] * status)
    assert "the report for no Turin" in outcome.detail("certificate")


def test_a_reserved_level(desk: Desk) -> None:
    for level, value in (("5", 0), ("5", 1), ("4", 200)):
        extensions = leaf_extensions(tcb=TCB) | {f"3.{level}": integer(value)}
        vcek = issue(desk.root.leaf_key, "SEV-VCEK", by=desk.root.ask, ca=False, extensions=extensions)
        assert desk.verify(REPORT, vcek=vcek.der).failed == (["certificate"] if value else [])


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x02\x01", b"\x02\x02\x00\x04", b"\x04\x01\x04", b"\x02\x01\x04\x00"])
def test_a_level_has_one_encoding(desk: Desk, raw: bytes) -> None:
    assert leaf_extensions(tcb=TCB)["3.1"] == b"\x02\x01\x04"
    extensions = leaf_extensions(tcb=TCB) | {"3.1": raw}
    vcek = issue(desk.root.leaf_key, "SEV-VCEK", by=desk.root.ask, ca=False, extensions=extensions)
    outcome = desk.verify(REPORT, vcek=vcek.der)
    assert outcome.failed == ["certificate"]
    assert "its bootloader level is missing" in outcome.detail("certificate")


def test_hwid_in_either_encoding(desk: Desk) -> None:
    """The specification says OCTET STRING; AMD's server gives the bytes alone."""
    assert desk.verify(REPORT, vcek=desk.root.vcek(hwid=b"\x04\x40" + CHIP).der).status == 0


def test_a_vlek_names_the_provider_and_no_chip(desk: Desk) -> None:
    vlek = desk.root.vcek("SEV-VLEK", hwid=None, csp="provider")
    path = desk.write("vlek.der", vlek.der)
    outcome = desk.verify(VLEK, "--vlek", path, without=("vcek",))
    assert outcome.status == 0
    assert "cloud provider provider" in outcome.detail("certificate")
    for wrong in (
        desk.root.vcek("SEV-VLEK", hwid=CHIP, csp="provider"),
        desk.root.vcek("SEV-VLEK", hwid=None),
    ):
        path.write_bytes(wrong.der)
        assert desk.verify(VLEK, "--vlek", path, without=("vcek",)).failed == ["certificate"]
    # A VCEK where the report says VLEK, under either option.
    path.write_bytes(desk.root.vcek().der)
    assert desk.verify(VLEK, "--vlek", path, without=("vcek",)).failed == ["certificate"]
    assert desk.verify(VLEK).failed == ["signature"]
    said = desk.verify(VLEK, without=("vcek",)).detail("signature")
    assert said.endswith(
        "--vlek FILE; it comes from the cloud provider, its chain from https://kdsintf.amd.com/vlek/v1/Milan/cert_chain"
    )


def test_the_address_of_the_revocation_list(desk: Desk) -> None:
    """That of the key that signed, for the processor of the report or, where it names none, of the certificate."""
    server = "no --crl given; AMD serves one at https://kdsintf.amd.com"
    vlek = desk.write("vlek.der", desk.root.vcek("SEV-VLEK", hwid=None, csp="provider").der)
    said = desk.verify(VLEK, "--vlek", vlek, without=("vcek",)).detail("revocation")
    assert said == f"{server}/vlek/v1/Milan/crl"
    assert desk.verify(REPORT).detail("revocation") == f"{server}/vcek/v1/Milan/crl"
    old = Draft(report_data=NONCE, version=2)
    genoa = desk.root.vcek(product="Genoa-B1").der
    assert desk.verify(old, vcek=genoa).detail("revocation") == f"{server}/vcek/v1/Genoa/crl"
    assert "/vcek/v1/PRODUCT (Milan or Genoa)/" in desk.verify(old, without=("vcek",)).detail("signature")


@pytest.mark.parametrize(
    ("at", "status"),
    [
        ("2019-12-31T23:59:59+00:00", 1),
        ("2020-01-01", 0),
        ("2045-01-01T01:00:00+01:00", 0),
        ("2045-01-01T00:00:01", 1),
    ],
)
def test_certificates_have_a_time(desk: Desk, at: str, status: int) -> None:
    outcome = desk.verify(REPORT, "--at", at)
    assert (outcome.status, outcome.failed) == (status, ["validity dates"] * status)


@pytest.mark.parametrize("which", ["vcek", "ask", "ark"])
def test_one_expired_certificate_is_enough(desk: Desk, which: str) -> None:
    past = (BEGIN, datetime(2021, 1, 1, tzinfo=UTC))
    root = desk.root
    expired = {
        "vcek": lambda: root.vcek(dates=past),
        "ask": lambda: issue(root.ask.key, "SEV-Milan", by=root.ark, dates=past),
        "ark": lambda: issue(root.ark.key, "ARK-Milan", dates=past),
    }[which]()
    other: dict[str, Any] = {which: expired.pem}
    outcome = desk.verify(REPORT, **other)
    assert (outcome.status, outcome.failed) == (1, ["validity dates"])
    assert "expired on 2021-01-01" in outcome.detail("validity dates")
    assert desk.verify(REPORT, "--at", "2020-06-01", **other).status == 0
    future = root.vcek(dates=(datetime(2044, 1, 1, tzinfo=UTC), END))
    assert "valid from 2044" in desk.verify(REPORT, vcek=future.pem).detail("validity dates")


def test_revocation(desk: Desk) -> None:
    """Serial numbers of the kit: ARK 1, ASK 2; the VCEK's, also 1, is of another issuer."""
    root = desk.root
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)

    def verify(revoked: Sequence[int], *, at: str = "2026-02-01", **changes: Any) -> Outcome:
        made = revocation_list(changes.pop("issuer", root.ark), revoked, **{"begin": begin, "end": end, **changes})
        return desk.verify(REPORT, "--crl", desk.write("crl", made), "--at", at)

    for revoked in ([], [3, 4]):
        good = verify(revoked)
        assert good.status == 0
        assert "revocation" in good.of("ok")
    for outcome, said in (
        (verify([2, 3]), "revoked: SEV-Milan"),
        (verify([1]), "revoked: ARK-Milan"),
        (verify([], at="2025-12-31"), "fetch a new one"),
        (verify([], at="2026-07-02"), "fetch a new one"),
        (verify([], signer=root.other_key), "the list is not signed by ARK-Milan"),
        (verify([], issuer=root.ask), "the list is not issued by ARK-Milan"),
    ):
        assert (outcome.status, outcome.failed) == (1, ["revocation"])
        assert said in outcome.detail("revocation")
    assert desk.verify(REPORT).detail("revocation").startswith("no --crl given")
    for data in (b"", b"-----BEGIN X509 CRL-----", root.ark.der, root.ark.pem):
        assert "no certificate revocation list" in desk.refused(REPORT, "--crl", desk.write("crl", data))


def test_the_algorithm_outside_of_what_is_signed(desk: Desk) -> None:
    """Nothing signs it: the salt length of another PSS in it must not pass."""
    der = bytearray(desk.root.vcek().der)
    salt = der.rindex(b"\xa2\x03\x02\x01\x30")
    der[salt + 4] = 0x20
    outcome = desk.verify(REPORT, vcek=bytes(der))
    assert outcome.failed == ["certificate chain"]
    assert "two signature algorithms" in outcome.detail("certificate chain")


def test_a_root_that_came_with_the_chain_must_be_amds(desk: Desk) -> None:
    """Whoever supplies the chain, which may be the host, must not choose the root."""
    chain = desk.write("chain.pem", desk.root.ask.pem + desk.root.ark.pem)
    outcome = desk.verify(REPORT, "--chain", chain, without=("ask", "ark"))
    assert (outcome.status, outcome.failed) == (1, ["root of trust"])
    assert "give it by itself with --ark" in outcome.detail("root of trust")
    assert desk.verify(REPORT, "--chain", chain, without=("ask",)).status == 0
    # --ark wins over the root in the chain.
    forged = desk.write("chain.pem", desk.root.ask.pem + issue(desk.root.other_key, "ARK-Milan").pem)
    assert desk.verify(REPORT, "--chain", forged, without=("ask",)).status == 0
    fingerprint = desk.root.ark.certificate.fingerprint(hashes.SHA256()).hex()
    assert fingerprint not in AMD_ROOTS
    assert fingerprint in outcome.detail("root of trust")


def test_certificates_in_pem_or_der(desk: Desk) -> None:
    root = desk.root
    assert desk.verify(REPORT, vcek=root.vcek().pem, ask=root.ask.der, ark=root.ark.der).status == 0
    assert desk.verify(REPORT, ark=b"CN = ARK-Milan\n" + root.ark.pem + b"\n").status == 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (lambda _: {"vcek": b""}, "vcek: no X.509 certificate"),
        (lambda root: {"vcek": root.vcek().der[:-1]}, "vcek: no X.509 certificate"),
        (
            lambda _: {"ask": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
            "ask: no X.509",
        ),
        (lambda root: {"ark": root.ark.pem * 2}, "ark: has 2 certificates"),
        (lambda _: {"ark": bytes(1 << 21)}, "ark: larger than 1 MiB"),
    ],
)
def test_files_that_are_no_certificate(desk: Desk, files: Callable[[Any], dict[str, bytes]], said: str) -> None:
    assert said in desk.refused(REPORT, **files(desk.root))


def test_chain_files_that_are_none(desk: Desk, tmp_path: Path) -> None:
    root = desk.root
    for pem in (root.ask.pem, root.ark.pem * 2, root.ask.pem * 2 + root.ark.pem):
        chain = desk.write("chain.pem", pem)
        words = desk.words(REPORT, without=("ask", "ark"))
        answer = desk.call("verify", *words, "--chain", chain)
        assert answer.status == 2
        assert "self-issued" in answer.one_line()
    assert "exclude each other" in desk.refused(REPORT, "--chain", desk.write("c", root.ask.pem + root.ark.pem))
    assert "No such file" in desk.refused(REPORT, "--vcek", tmp_path / "none")
    assert "not allowed with" in desk.refused(REPORT, "--vlek", tmp_path / "none")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_no_bytes_in_a_certificates_place_make_a_traceback(desk: Desk, data: strategies.DataObject) -> None:
    """Cut, changed in a few places, or anything at all; and none of it is verified."""
    which = data.draw(strategies.sampled_from(["vcek", "ask", "ark", "crl"]))
    crl = revocation_list(desk.root.ark, [7], begin=BEGIN, end=END)
    whole = {"ask": desk.root.ask.der, "ark": desk.root.ark.der, "crl": crl}.get(which, desk.root.vcek().der)
    kind = data.draw(strategies.sampled_from(["cut", "changed", "any"]))
    if kind == "cut":
        broken = whole[: data.draw(strategies.integers(0, len(whole) - 1))]
    elif kind == "any":
        broken = data.draw(strategies.binary(max_size=200))
    else:
        changed = bytearray(whole)
        for at in data.draw(
            strategies.lists(strategies.integers(0, len(whole) - 1), min_size=1, max_size=4, unique=True)
        ):
            changed[at] ^= data.draw(strategies.integers(1, 255))
        broken = bytes(changed)
    list_file = desk.write("crl", broken if which == "crl" else crl)
    other: dict[str, Any] = {which: broken}
    answer = desk.call("verify", *desk.words(REPORT, **other), "--crl", list_file)
    assert answer.status in (1, 2)
    assert "Traceback" not in answer.err
    assert len(answer.err.splitlines()) == (1 if answer.status == 2 else 0)
