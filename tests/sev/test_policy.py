# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guest policies: names and bits turn into each other, bad names are refused."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.recipes import policies
from tools.sev import policy
from tools.sev.policy import LAYOUTS, Layout

REPOSITORY = Path(__file__).resolve().parents[2]
# From the specifications: name → (bit, value of the name when the bit is one).
SNP = {
    "smt": (16, True), "migrate": (18, True), "debug": (19, True), "single-socket": (20, True),
    "cxl": (21, True), "aes-256-xts": (22, True), "rapl": (23, False), "ciphertext-hiding": (24, True),
    "page-swap": (25, False),
}  # fmt: skip
LEGACY = {
    "debug": (0, False), "key-sharing": (1, False), "send": (3, False), "send-in-domain-only": (4, True),
    "send-to-sev-only": (5, True),
}  # fmt: skip
BITS = {"snp": SNP, "sev-es": LEGACY, "sev": LEGACY}
# No time limit: the machine may be busy.
EVERY = settings(deadline=None, max_examples=300)
ONES = {"snp": [17], "sev-es": [2], "sev": []}


@pytest.mark.parametrize("mode", LAYOUTS)
def test_the_bits_are_those_of_the_specifications(mode: str) -> None:
    assert {flag.name: (flag.bit, flag.when_set) for flag in LAYOUTS[mode].flags} == BITS[mode]
    assert list(LAYOUTS[mode].ones) == ONES[mode]


def read(values: dict[str, bool | str], layout: Layout) -> int:
    return policies.read(toml_reader.Table(dict(values), file="guest.toml", path="policy"), layout)


@strategies.composite
def named(draw: strategies.DrawFn) -> tuple[str, dict[str, bool | str]]:
    """A mode, and a value for every name of its policy."""
    mode = draw(strategies.sampled_from(sorted(LAYOUTS)))
    layout = LAYOUTS[mode]
    major, minor = draw(strategies.integers(0, 255)), draw(strategies.integers(0, 255))
    values: dict[str, bool | str] = {layout.version: f"{major}.{minor}"}
    values |= {flag.name: draw(strategies.booleans()) for flag in layout.flags}
    return mode, values


@EVERY
@given(named())
def test_names_to_bits_and_back(given: tuple[str, dict[str, bool | str]]) -> None:
    mode, values = given
    bits = read(values, LAYOUTS[mode])
    assert policy.decode(bits, policy.LAYOUTS[mode]) == values
    assert policy.encode(values, policy.LAYOUTS[mode]) == bits
    assert policy.wrong(bits, policy.LAYOUTS[mode]) == []
    for name, (bit, when_set) in BITS[mode].items():
        assert (bits >> bit & 1) == (values[name] is when_set)
    assert policy.allows_debug(bits, LAYOUTS[mode]) is values["debug"]
    # The comment in runtime.toml is TOML without its line breaks.
    assert tomllib.loads(policy.spell(bits, LAYOUTS[mode]).replace(", ", "\n")) == values


@EVERY
@given(strategies.integers(0, (1 << 64) - 1), strategies.sampled_from(sorted(LAYOUTS)))
def test_any_bits_decode_and_what_is_lost_is_said(bits: int, mode: str) -> None:
    layout = policy.LAYOUTS[mode]
    again = policy.encode(policy.decode(bits, layout), layout)
    # Encoding what was decoded gives the same bits exactly when nothing was wrong with them.
    assert (again == bits) is (policy.wrong(bits, layout) == [])


@pytest.mark.parametrize(
    ("bits", "mode", "says"),
    [
        (0x10000, "snp", ["lacks bit 17, which is reserved and must be 1"]),
        (0x4030000, "snp", ["has reserved bits that must be 0: 26"]),
        (1 << 63 | 0x30000, "snp", ["has reserved bits that must be 0: 63"]),
        (1 << 64 | 0x30000, "snp", ["does not fit into 64 bits"]),
        (0x1, "sev-es", ["lacks bit 2 (ES), so this would be plain SEV"]),
        (0x5, "sev", ["has bit 2 (ES), which belongs to mode sev-es"]),
        (0x41, "sev", ["has reserved bits that must be 0: 6"]),
        (0x8005, "sev-es", ["has reserved bits that must be 0: 15"]),
        (0xFFFF0005, "sev-es", []),
        (0x3FFFFFF, "snp", []),
    ],
)
def test_reserved_bits(bits: int, mode: str, says: list[str]) -> None:
    assert policy.wrong(bits, policy.LAYOUTS[mode]) == says


def test_known_policies() -> None:
    """Values that other projects write down: QEMU's and Kata's defaults, AMD's sev-tool's SEV_POLICY_NORM."""
    snp = policy.decode(0x30000, policy.SNP)
    assert [name for name, value in snp.items() if value is True] == ["smt", "rapl", "page-swap"]
    norm = policy.decode(0x37, policy.SEV_ES)
    assert norm == {
        "min-api": "0.0",
        "debug": False,
        "key-sharing": False,
        "send": True,
        "send-in-domain-only": True,
        "send-to-sev-only": True,
    }
    # The version's bytes: minor first for SNP, major first for SEV.
    assert policy.decode(0x30133, policy.SNP)["min-abi"] == "1.51"
    assert policy.decode(0x36010005, policy.SEV_ES)["min-api"] == "1.54"


def test_by_what_a_policy_lets_the_host_read_the_guest() -> None:
    def names(bits: int, mode: str) -> list[str]:
        return [name for name, _ in policy.openings(bits, LAYOUTS[mode])]

    assert names(0x30000, "snp") == names(0x3F, "sev-es") == names(0x3B, "sev") == []
    assert names(0xF0000, "snp") == ["migrate", "debug"]
    assert names(0x0, "sev") == ["debug", "key-sharing", "send"]
    # NODBG, NOKS, NOSEND alone: where a guest may go does not matter when it may not go.
    assert names(0xB, "sev") == []
    for bit, name in ((0, "debug"), (1, "key-sharing"), (3, "send")):
        assert names(0x3F & ~(1 << bit), "sev-es") == [name]
    # Only bit 5 (SEV) has the certificate of the other side verified; DOMAIN's authority is the host's own.
    own = "to a key of its own"
    assert own in dict(policy.openings(0x7, policy.SEV_ES))["send"]
    assert own in dict(policy.openings(0x17, policy.SEV_ES))["send"]
    assert own not in dict(policy.openings(0x27, policy.SEV_ES))["send"]


GOOD: dict[str, bool | str] = {"min-abi": "1.51"} | dict.fromkeys(SNP, False)


def test_the_good_one_that_the_bad_ones_start_from() -> None:
    assert read(GOOD, policy.SNP) == 0x2820133


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"debug": None}, "guest.toml: policy.debug: missing; add it (true or false)"),
        ({"min-abi": None}, "guest.toml: policy.min-abi: missing; add it (a version such as 1.51)"),
        ({"debug": 0}, "guest.toml: policy.debug: must be true or false, not an integer"),
        ({"debug": "false"}, "guest.toml: policy.debug: must be true or false, not a string"),
        ({"smt2": True}, "guest.toml: policy.smt2: unknown key; known here: aes-256-xts"),
        ({"key-sharing": True}, "guest.toml: policy.key-sharing: unknown key"),
        ({"min-abi": "1"}, "guest.toml: policy.min-abi: min-abi is a version from 0.0 to 255.255, not '1'"),
        ({"min-abi": "01.51"}, "guest.toml: policy.min-abi: min-abi is a version from 0.0 to 255.255, not '01.51'"),
        ({"min-abi": "1.51.1"}, "guest.toml: policy.min-abi: min-abi is a version from 0.0 to 255.255, not '1.51.1'"),
        ({"min-abi": "1.256"}, "guest.toml: policy.min-abi: min-abi is a version from 0.0 to 255.255, not '1.256'"),
        ({"min-abi": 1.51}, "guest.toml: policy.min-abi: must be a version such as 1.51, not a float"),
        ({"min-abi": "-1.5"}, "guest.toml: policy.min-abi: min-abi is a version from 0.0 to 255.255, not '-1.5'"),
    ],
)
def test_bad_policies_name_file_and_key(change: dict[str, object], line: str) -> None:
    values: dict[str, object] = {**GOOD, **change}
    with pytest.raises(UserError) as info:
        read({k: v for k, v in values.items() if v is not None}, policy.SNP)  # type: ignore[misc]  # bad types are the point
    assert str(info.value).startswith(line)


def test_nothing_is_imported_for_it() -> None:
    """`sev-launch policy` is to start as fast as Python does."""
    code = "import sys; before = set(sys.modules); import tools.sev.policy; print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout == "['tools', 'tools.sev', 'tools.sev.policy']\n"
