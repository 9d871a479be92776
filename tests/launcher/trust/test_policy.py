# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Policies and the state beside them: what is a mistake, and what is remembered."""

import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.launcher.trust.kit import NOW, Bench
from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.trust import memory
from tools.launcher.trust.memory import ByKey, Seen
from tools.launcher.trust.policy import load_policy


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path)


MISTAKES = {
    "a key twice": ({"principals": {"alice": ["alice"], "carol": ["alice"]}}, "has a key of alice, too"),
    "a key twice of one": ({"principals": {"alice": ["alice", "alice"]}, "endorsers": 1}, "twice"),
    "more than there are": ({"endorsers": 4}, "is 4, there are 3 principals"),
    "none": ({"endorsers": 0}, "0 is not in 1"),
    "no such principal": ({"provenance": ["carol"]}, "'carol' is no principal"),
    "a typing mistake": ({"maximum-age": 3}, "unknown key"),
    "no word on latest": ({"latest": None}, "latest: missing"),
    "another schema": ({"schema": 2}, "2 is not in 1"),
    "a name that is a path": ({"name": "../x"}, "is not a name"),
    "no such file": ({"principals": {"carol": ["carol"]}, "endorsers": 1}, "No such file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(bench: Bench, name: str) -> None:
    changes, why = MISTAKES[name]
    with pytest.raises(UserError, match=why):
        bench.policy(**changes)  # type: ignore[arg-type]  # as they are typed
    bench.policy()


def test_keys_that_do_not_count(bench: Bench) -> None:
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    others = (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    texts = {"is neither Ed25519 nor P-256": [key.public_key().public_bytes(pem, form) for key in others],
             "holds no public key in PEM": [b"", b"nothing", (bench.folder / "bob.key").read_bytes()]}  # fmt: skip
    for why, found in texts.items():
        for text in found:
            (bench.folder / "carol.pub").write_bytes(text)
            with pytest.raises(UserError, match=why):
                bench.policy(principals={"carol": ["carol"]}, endorsers=1)


def test_a_key_in_the_policy_itself(bench: Bench) -> None:
    bench.policy(principals={"alice": ["alice"]}, endorsers=1)
    path = bench.folder / "policy.toml"
    text = json.dumps((bench.folder / "alice.pub").read_text())
    path.write_text(path.read_text().replace('"alice.pub"', text))
    (bench.folder / "alice.pub").unlink()
    bench.decide(bench.endorsed("alice"), policy=load_policy(path))


def test_without_the_package(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tools.launcher.trust.signatures", None)
    with pytest.raises(UserError, match="signatures need the Python package cryptography"):
        bench.policy()


# ── memory ──


def test_what_was_seen_is_kept_even_when_it_ends_badly(tmp_path: Path) -> None:
    def learn(seen: Seen) -> None:
        seen.heard("key", 3, NOW)
        seen.heard("key", 2)
        raise CheckError("no")

    with pytest.raises(CheckError):
        memory.update(tmp_path / "state", "name", "production", learn)
    found: list[Seen] = []
    memory.update(tmp_path / "state", "name", "production", found.append)
    assert found[0].keys == {"key": ByKey(svn=3, latest=NOW)}
    memory.update(tmp_path / "state", "name", "debug", found.append)
    assert found[1].keys == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 2, "profiles": {}}', '{"schema": 1, "profiles": {"p": 1}}']
)
def test_a_state_that_is_none_lets_nothing_pass(tmp_path: Path, text: str) -> None:
    (tmp_path / "name.json").write_text(text)
    with pytest.raises(UserError, match="is not what this program has written"):
        memory.update(tmp_path, "name", "p", lambda _: None)
    assert (tmp_path / "name.json").read_text() == text


def test_a_state_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--state DIR"):
        memory.update(tmp_path / "file/state", "name", "p", lambda _: None)
