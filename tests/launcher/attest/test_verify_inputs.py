# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify REPORT`: the forms in which a report, its data and the expected digests may come."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.attest.verify_kit import NONCE, Desk, digests_document, draft, snp_digest


@pytest.mark.parametrize(
    "encode",
    [
        base64.b64encode,
        base64.encodebytes,
        base64.urlsafe_b64encode,
        lambda raw: raw.hex().encode(),
        lambda raw: b"0x" + raw.hex().upper().encode() + b"\r\n",
        lambda raw: b"\n".join(raw[at : at + 30].hex().encode() for at in range(0, len(raw), 30)),
    ],
    ids=["base64", "base64 in lines", "base64url", "hex", "0x", "hex in lines"],
)
def test_a_report_as_text(desk: Desk, encode: Callable[[bytes], bytes]) -> None:
    raw = draft().raw(desk.root.leaf_key)
    assert desk.verify(encode(raw)).status == 0
    assert f"has {len(encode(raw[:-1]))} bytes (" in desk.refused(encode(raw[:-1]))


def test_bytes_from_a_file(desk: Desk) -> None:
    nonce = desk.write("nonce", NONCE)
    assert desk.verify(draft(), "--report-data", f"@{nonce}", without=("report-data",)).status == 0
    nonce.write_bytes(bytes(64))
    assert desk.verify(draft(), "--report-data", f"@{nonce}").failed == ["report data"]
    nonce.write_bytes(bytes(65))
    assert "nonce: has 65 bytes, not 64" in desk.refused(draft(), "--report-data", f"@{nonce}")
    for text in (NONCE.hex().encode() + b"\n", base64.b64encode(NONCE)):
        nonce.write_bytes(text)
        assert desk.verify(draft(), "--report-data", f"@{nonce}", without=("report-data",)).status == 0
    nonce.write_bytes(NONCE[:-1].hex().encode())
    assert "has 126 bytes (hexadecimal text of 63 bytes?), not 64" in desk.refused(
        draft(), "--report-data", f"@{nonce}"
    )


def test_report_data_of_a_file(desk: Desk) -> None:
    nonce = desk.write("nonce", b"any length")
    right = draft(report_data=hashlib.sha512(b"any length").digest())
    assert desk.verify(right, "--report-data-file", nonce, without=("report-data",)).status == 0
    outcome = desk.verify(draft(), "--report-data-file", nonce, without=("report-data",))
    assert outcome.failed == ["report data"]


def test_which_digests_count(desk: Desk) -> None:
    assert desk.verify(draft(), "--cpu", "Milan", "--cpus", "4").status == 0
    assert desk.verify(draft(), "--cpu", "EPYC-Milan-v1").status == 0
    for model in ("Genoa", "EPYC-Genoa"):
        assert desk.verify(draft(), "--cpu", model).failed == ["launch digest"]
    assert desk.verify(draft(), "--cpus", "3").failed == ["launch digest"]
    assert "none of the 1 expected" in desk.verify(draft(), "--cpu", "Milan", "--cpus", "3").detail("launch digest")
    other = draft(measurement=snp_digest("Genoa", 7))
    assert desk.verify(other).detail("launch digest") == "Genoa, 7 vCPUs"
    digest = snp_digest("Milan", 4)
    assert desk.verify(draft(), "--digest", digest.hex()).status == 0
    assert desk.verify(draft(), "--digest", "00" * 48).failed == ["launch digest"]


def test_a_digest_that_stands_for_two_names_both(desk: Desk) -> None:
    document = digests_document()
    document["modes"]["snp"]["digests"]["Genoa"]["4"] = snp_digest("Milan", 4).hex()
    path = desk.folder / "other.json"
    path.write_text(json.dumps(document))
    assert desk.verify(draft(), "--digests", path).detail("launch digest") == "Milan, 4 vCPUs; Genoa, 4 vCPUs"


def test_nothing_but_options_is_needed(desk: Desk, tmp_path: Path) -> None:
    """A relying party may have the digest and the policy, and no build."""
    more = ["--config", str(tmp_path / "none"), "--digest", snp_digest("Milan", 4).hex(), "--policy", "0x30000"]
    assert desk.verify(draft(), *more).status == 0
    assert "none" in desk.refused(draft(), *more[:4])
    assert "launch-digests.json" in desk.refused(draft(), *more[:2], *more[4:])
