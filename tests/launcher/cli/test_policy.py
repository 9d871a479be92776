# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-launch policy: bits to names and back, refusals that still show what they can."""

import json
import tomllib
from collections.abc import Callable

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tools.sev import policy

Call = Callable[..., Answer]


def test_bits_are_spelt_as_the_recipe_writes_them(call: Call) -> None:
    answer = call("policy", "0xb0000")
    assert (answer.status, answer.err) == (0, "")
    assert tomllib.loads(answer.out) == policy.decode(0xB0000, policy.SNP)
    lines = answer.out.splitlines()
    assert lines[0] == 'min-abi = "0.0"              # the lowest SNP firmware ABI that may run the guest'
    assert lines[3].startswith("debug = true ")
    assert lines[3].endswith("the host may read and change the guest's memory (bit 19, DEBUG)")
    assert call("policy", "720896").out == answer.out


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        (["smt=true", "debug=true", "min-abi=1.51"], "0xb0133"),
        (["smt=true"], "0x30000"),
        (["smt=true", "rapl=false", "page-swap=false"], "0x2830000"),
        # Debugging is never on unasked, although NODBG is zero when nothing is said.
        (["--mode", "sev", "send=true"], "0x1"),
        (["--mode", "sev-es", "send=true"], "0x5"),
        (["--mode", "sev-es", "debug=true"], "0x4"),
        (["--mode", "sev-es", "key-sharing=false", "min-api=1.54"], "0x36010007"),
        (["--mode", "sev", "send=false", "send-in-domain-only=true", "send-to-sev-only=true"], "0x39"),
    ],
)
def test_names_to_bits_and_back(call: Call, words: list[str], bits: str) -> None:
    answer = call("policy", *words)
    assert (answer.status, answer.out, answer.err) == (0, f"{bits}\n", "")
    mode = words[:2] if words[0] == "--mode" else []
    spelt = tomllib.loads(call("policy", *mode, bits).out)
    back = [f"{name}={str(value).lower()}" for name, value in spelt.items()]
    assert call("policy", *mode, *back).out == f"{bits}\n"


def test_json(call: Call) -> None:
    document = json.loads(call("policy", "--json", "smt=true", "min-abi=1.51").out)
    assert document == {
        "schema": 1,
        "mode": "snp",
        "policy": "0x30133",
        "names": policy.decode(0x30133, policy.SNP),
        "wrong": [],
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0x10000"], "0x10000 lacks bit 17, which is reserved and must be 1"),
        (["0x4030000"], "0x4030000 has reserved bits that must be 0: 26"),
        (["0x10000000000030000"], "does not fit into 64 bits"),
        (["--mode", "sev-es", "0x1"], "0x1 lacks bit 2 (ES), so this would be plain SEV"),
        (["--mode", "sev", "0x5"], "0x5 has bit 2 (ES), which belongs to mode sev-es"),
        (["--mode", "sev", "0xffffffffff"], "does not fit into 32 bits"),
    ],
)
def test_reserved_bits_are_refused_after_what_could_be_decoded(call: Call, words: list[str], says: str) -> None:
    answer = call("policy", *words)
    assert answer.status == 2
    assert says in answer.err.splitlines()[0]  # further reasons have lines of their own
    layout = policy.LAYOUTS[words[1] if words[0] == "--mode" else "snp"]
    assert tomllib.loads(answer.out) == policy.decode(int(words[-1], 16), layout)
    answer = call("policy", "--json", *words)
    assert answer.status == 2
    assert any(reason in says or says in reason for reason in json.loads(answer.out)["wrong"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: BITS | NAME=VALUE"),
        (["smt"], "'smt' is neither a number nor NAME=VALUE"),
        (["-1"], "'-1' is neither a number"),
        (["0x"], "'0x' is neither a number"),
        (["1", "2"], "one number, or names and values"),
        (["smt=true", "0x30000"], "'0x30000' has no value"),
        (["smt=1"], "smt is true or false, not '1'"),
        (["smt=True"], "smt is true or false, not 'True'"),
        (["smt=true", "smt=true"], "'smt' stands twice"),
        (["nodbg=true"], "'nodbg' is no name of mode snp, did you mean debug?; known: min-abi, smt"),
        (["min-api=1.0"], "'min-api' is no name of mode snp"),
        (["--mode", "sev", "smt=true"], "'smt' is no name of mode sev; known: min-api, debug"),
        (["min-abi=1"], "min-abi is a version from 0.0 to 255.255, not '1'"),
        (["min-abi=1.256"], "min-abi is a version from 0.0 to 255.255"),
        (["min-abi=true"], "min-abi is a version from 0.0 to 255.255"),
        (["--mode", "tdx", "1"], "invalid choice: 'tdx'"),
        (["\x1b[2J=1"], "is no name of mode snp"),
    ],
)
def test_mistakes(call: Call, words: list[str], says: str) -> None:
    answer = call("policy", *words)
    assert (answer.status, answer.out) == (2, "")
    assert says in answer.one_line()
    assert "\x1b" not in answer.err


def test_the_config_refuses_reserved_bits_too(call: Call, out: Out) -> None:
    data = out.data
    for mode, bits, says in (
        ("snp", 0x4030000, "sev.snp.policy: 0x4030000 has reserved bits that must be 0: 26"),
        ("sev-es", 0x45, "sev.sev-es.policy: 0x45 has reserved bits that must be 0: 6"),
        ("sev", 0x8001, "sev.sev.policy: 0x8001 has reserved bits that must be 0: 15"),
    ):
        good = data["sev"][mode]["policy"]
        data["sev"][mode]["policy"] = bits
        out.write()
        answer = call("check", "--config", out.config)
        assert answer.status == 2
        assert says in answer.one_line()
        data["sev"][mode]["policy"] = good
    out.write()
    assert call("check", "--config", out.config).status == 0
