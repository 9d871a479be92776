# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""REPORT_DATA of reports that go through the agent: known bytes, and who can imitate whom."""

import hashlib
import itertools

import pytest

from tools.sev.agent.report_data import DATA_MAX, Domain, report_data

KNOWN = {
    Domain.WORKLOAD: "667ac2460b8e916ef0c38736c3ba7fb428ad8d5809a33d8410cbe320f510202f"
    "0ec919fa3a7717a0b5a6a6ff567cc5d9cf059ab4af93af116ddd370fa16eac00",
    Domain.HOST: "d928c280ef79b178f6219beda9f882708f656bfd56eced1dd230ea55ca4c6b20"
    "89453ebbf92f5418b83d3f463f3ec2f7df75283ed699b98bfe13c400c8d86727",
    Domain.AGENT: "9ddaede36a70fd6e493462a8d915404e404576efc517961217f12db847cc43e8"
    "4b9c6d520af3d812b411d1b62a47e2863df858879a7c28d4d25b0e4dbc96c573",
}
"""For the three bytes 00 01 02; the agent's test has the same (initramfs/agent/src/reports/domain.rs)."""


def test_known_bytes() -> None:
    assert {domain: report_data(domain, bytes(range(3))).hex() for domain in Domain} == KNOWN
    said = b"sev-artifacts report 1 workload\0" + b"\1\0\0\0" + b"x"
    assert report_data(Domain.WORKLOAD, b"x") == hashlib.sha512(said).digest()


def test_no_two_questions_have_one_answer() -> None:
    """Data of other lengths, data that continues a label, and data that looks like an encoded question."""
    encoded = b"\0\1\0\0\0x"
    pieces = [b"x", b"x\0", b"\0x", b"xx", bytes(64), bytes(63), encoded, b"workload" + encoded, b"host"]
    answers = [report_data(domain, piece) for domain, piece in itertools.product(Domain, pieces)]
    assert len(set(answers)) == len(answers) == 27
    assert {len(answer) for answer in answers} == {64}


@pytest.mark.parametrize("size", [0, DATA_MAX + 1])
def test_what_is_too_short_or_too_long(size: int) -> None:
    with pytest.raises(ValueError, match=f"has {size} bytes"):
        report_data(Domain.HOST, bytes(size))
    report_data(Domain.HOST, bytes(DATA_MAX))
