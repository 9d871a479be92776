# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whose word counts, and when it does not any more; each refusal beside what is accepted."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.trust.kit import COMMIT, FILES, NOW, Bench, day, manifest, sha256
from tools.launcher.base.errors import CheckError
from tools.launcher.trust.artifact import File, parse
from tools.launcher.trust.decision import Bundle
from tools.sev import formats

OTHER = "d" * 40


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path)


def test_two_of_three(bench: Bench) -> None:
    found = bench.decide(bench.endorsed("alice"), bench.endorsed("bob"))
    assert (found.commit, found.svn, [name for name, _ in found.endorsers]) == (COMMIT, 1, ["alice", "bob"])
    assert "endorsed by 1 of the 2 principals that it takes (alice)" in bench.why_not(bench.endorsed("alice"))
    assert "endorsed by 0 of the 2" in bench.why_not()


def test_two_keys_of_one_principal_are_one_voice(bench: Bench) -> None:
    both = bench.endorsed("alice"), bench.endorsed("alice2")
    assert "endorsed by 1 of the 2 principals that it takes (alice)" in bench.why_not(*both)
    # The control: the same two keys, of two principals.
    apart = bench.policy(principals={"alice": ["alice"], "carol": ["alice2"]})
    assert [name for name, _ in bench.decide(*both, policy=apart).endorsers] == ["alice", "carol"]


def test_the_same_word_twice_is_said_once(bench: Bench) -> None:
    assert "endorsed by 1" in bench.why_not(*[bench.endorsed("bob", date=day(number)) for number in (-3, -2, -1)])


def test_a_key_that_nobody_named(bench: Bench) -> None:
    said = bench.why_not(bench.endorsed("alice"), bench.endorsed("mallory"))
    assert "from mallory: is not signed by a key of the policy" in said


def test_who_does_not_agree_on_the_commit(bench: Bench) -> None:
    other = bench.endorsed("bob", source={"digest": {"gitCommit": OTHER}})
    assert "endorsed by 1" in bench.why_not(bench.endorsed("alice"), other)
    assert bench.decide(bench.endorsed("vendor"), bench.endorsed("alice"), other).commit == COMMIT


# ── dates and versions ──

CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "ended": ({"validUntil": day(-1)}, "has ended on 2026-11-25"),
    "old": ({"date": day(-91)}, "is of 2026-08-27, older than 90 days"),
    "future": ({"date": day(1)}, "is of the future"),
    "low": ({"svn": 0}, "has SVN 0, the policy's minimum is 1"),
    "profile": ({"profile": "debug"}, "is on profile 'debug', not 'production'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_endorsement_that_does_not_count(bench: Bench, name: str) -> None:
    change, why = CHANGES[name]
    policy = bench.policy(**{"maximum-age-days": 90})  # type: ignore[arg-type]  # a key of the policy
    assert why in bench.why_not(bench.endorsed("alice"), bench.endorsed("bob", **change), policy=policy)
    bench.decide(bench.endorsed("alice"), bench.endorsed("bob"), policy=policy)


def test_what_was_good_grows_old(bench: Bench) -> None:
    both = bench.endorsed("alice"), bench.endorsed("bob")
    policy = bench.policy(**{"maximum-age-days": 90})  # type: ignore[arg-type]  # a key of the policy
    bench.decide(*both, policy=policy)
    assert "older than 90 days" in bench.why_not(*both, policy=policy, now=NOW + timedelta(days=81))
    bench.decide(*both, now=NOW + timedelta(days=81))
    assert "has ended" in bench.why_not(*both, now=NOW + timedelta(days=301))


def test_no_way_back(bench: Bench) -> None:
    """After SVN 2 was accepted, 1 is not, not even by people who have not said 2."""
    old = [bench.endorsed(name) for name in ("vendor", "alice", "bob")]
    bench.decide(*old)
    new = bench.endorsed("alice", svn=2), bench.endorsed("bob", svn=2)
    assert bench.decide(*new).svn == 2
    said = bench.why_not(*old, policy=bench.policy(endorsers=1))
    assert "by vendor, has SVN 1, and 2 was accepted here before" in said


def test_one_who_has_said_more_does_not_count_for_less(bench: Bench) -> None:
    """What was refused is remembered, too: of the one who said it, and of nobody else."""
    assert "endorsed by 1" in bench.why_not(bench.endorsed("alice", svn=9))
    assert bench.seen.svn == 0
    said = bench.why_not(bench.endorsed("alice"), bench.endorsed("bob"))
    assert "by alice, has SVN 1, and the same principal has said 9" in said
    # His other key does not help him.
    assert "has said 9" in bench.why_not(bench.endorsed("alice2"), bench.endorsed("bob"))
    bench.decide(bench.endorsed("vendor"), bench.endorsed("bob"))


def test_what_strangers_say_is_not_remembered(bench: Bench) -> None:
    bench.why_not(bench.endorsed("mallory", svn=9), bench.latest("mallory", svn=9))
    assert not bench.seen.keys
    bench.decide(bench.endorsed("alice"), bench.endorsed("bob"))


# ── "latest" ──


def test_latest_is_asked_of_each(bench: Bench) -> None:
    policy = bench.policy(latest=True)
    both = bench.endorsed("alice"), bench.endorsed("bob")
    said = bench.why_not(*both, bench.latest("alice"), policy=policy)
    assert 'by bob, has no statement "latest" here' in said
    bench.decide(*both, bench.latest("alice"), bench.latest("bob"), policy=policy)


def test_latest_revokes(bench: Bench) -> None:
    both = bench.endorsed("alice"), bench.endorsed("bob")
    bench.decide(*both)
    said = bench.why_not(*both, bench.latest("bob", svn=2))
    assert "by bob, has SVN 1, and the same principal has said 2" in said
    # And stays so when the registry keeps it back.
    assert "the same principal has said 2" in bench.why_not(*both)
    bench.decide(*both, bench.endorsed("vendor"))


def test_latest_that_has_ended(bench: Bench) -> None:
    policy = bench.policy(latest=True)
    said = [bench.endorsed("alice"), bench.endorsed("bob"), bench.latest("alice"), bench.latest("bob")]
    bench.decide(*said, policy=policy)
    assert 'whose "latest" has ended on 2026-12-16' in bench.why_not(*said, policy=policy, now=NOW + timedelta(days=21))
    newer = [bench.latest(name, date=day(20), validUntil=day(50)) for name in ("alice", "bob")]
    bench.decide(*said, *newer, policy=policy, now=NOW + timedelta(days=21))


def test_a_latest_that_is_older_than_one_seen(bench: Bench) -> None:
    policy = bench.policy(latest=True)
    both = bench.endorsed("alice"), bench.endorsed("bob")
    old = bench.latest("alice", date=day(-5)), bench.latest("bob", date=day(-5))
    bench.decide(*both, *old, policy=policy)
    bench.decide(*both, bench.latest("alice"), bench.latest("bob"), policy=policy)
    assert "is older than one that was seen before" in bench.why_not(*both, *old, policy=policy)


# ── bytes ──


def test_statements_on_other_bytes(bench: Bench) -> None:
    """Another file's, another manifest's, one file less, one more."""
    for files in (
        {**FILES, "vmlinuz": b"other"},
        {"SHA256SUMS": FILES["SHA256SUMS"]},
        {**FILES, "more": b"more"},
    ):
        other = parse(manifest(files), where="test")
        said = bench.why_not(bench.endorsed("alice"), bench.endorsed("bob", artifact=other))
        assert "by bob, is on other bytes" in said
    same_files = parse(manifest(more="an annotation"), where="test")
    assert "is on other bytes: sev-artifacts" in bench.why_not(
        bench.endorsed("alice"), bench.endorsed("bob", artifact=same_files)
    )


def test_the_endorsed_manifest_is_no_file_of_another(bench: Bench) -> None:
    """Carried as a file by the name that statements give the manifest, it would vouch for what carries it."""
    endorsed = manifest()
    forged = manifest({**FILES, formats.SUBJECT: endorsed}, more="nobody endorsed this")
    with pytest.raises(CheckError, match="has a file sev-artifacts, which is what statements call the manifest"):
        parse(forged, where="test")
    words = [bench.endorsed(name) for name in ("alice", "bob")]
    assert bench.decide(*words)
    carried = File(name=formats.SUBJECT, sha256=sha256(endorsed), size=1, media_type="", executable=False)
    files = {**bench.artifact.files, formats.SUBJECT: carried}
    bench.artifact = replace(bench.artifact, data=forged, sha256=sha256(forged), files=files)
    assert "is on other bytes: sev-artifacts" in bench.why_not(*words)


def test_another_profile(bench: Bench) -> None:
    bench.artifact = parse(manifest(profile="debug"), where="test")
    both = bench.endorsed("alice", profile="debug"), bench.endorsed("bob", profile="debug")
    assert "has profile 'debug', the policy's is 'production'" in bench.why_not(*both)
    bench.decide(*both, policy=bench.policy(profile="debug"))


# ── provenance ──


def test_who_has_published(bench: Bench) -> None:
    policy = bench.policy(provenance=["vendor"])
    both = bench.endorsed("alice"), bench.endorsed("bob")
    assert "no provenance that counts, by vendor" in bench.why_not(*both, policy=policy)
    wrong = {
        "is not by one whose provenance counts": bench.provenance("alice"),
        "is not signed by a key of the policy": bench.provenance("mallory"),
        f"is of commit {OTHER}, endorsed is {COMMIT}": bench.provenance("vendor", commit=OTHER),
        "is on profile 'debug'": bench.provenance("vendor", profile="debug"),
        "published although: the checkout differs": bench.provenance(
            "vendor", publishedAlthough=["the checkout differs"], because="a test"
        ),
    }
    for why, bundle in wrong.items():
        assert why in bench.why_not(*both, bundle, policy=policy)
    assert bench.decide(*both, bench.provenance("vendor"), policy=policy).publisher == "vendor"
    lenient = bench.policy(provenance=["vendor"], although=True)
    assert bench.decide(*both, wrong["published although: the checkout differs"], policy=lenient).publisher == "vendor"


# ── form ──


def change(bundle: Bundle, what: str) -> bytes:
    """The bundle with one thing in it changed."""
    document = json.loads(bundle.data)
    envelope = document["dsseEnvelope"]
    match what:
        case "payload":
            raw = bytearray(base64.b64decode(envelope["payload"]))
            raw[raw.index(b'"svn":1') + 6] ^= 2
            envelope["payload"] = base64.b64encode(raw).decode()
        case "signature":
            raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
            raw[8] ^= 1
            envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
        case "type":
            envelope["payloadType"] = "application/json"
        case "two signatures":
            envelope["signatures"] *= 2
        case "no signature":
            envelope["signatures"] = []
        case "kind":
            document["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.2+json"
        case "base64":
            envelope["payload"] = "!" + envelope["payload"]
    return json.dumps(document).encode()


@pytest.mark.parametrize("what", ["payload", "signature", "type", "two signatures", "no signature", "kind", "base64"])
def test_bundles_that_are_none(bench: Bench, what: str) -> None:
    good = bench.endorsed("bob")
    bad = Bundle(where="it", data=change(good, what))
    said = bench.why_not(bench.endorsed("alice"), bad)
    assert "endorsed by 1" in said
    assert "it: " in said
    bench.decide(bench.endorsed("alice"), Bundle(where="it", data=change(good, "nothing")))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff", b"{" * 100_000, b'{"a":1,"a":2}', b'{"dsseEnvelope":{}}', b"1" * 5000]
)
def test_bytes_that_are_no_bundle(bench: Bench, raw: bytes) -> None:
    """They do not count, and do not keep others from counting."""
    bundle = Bundle(where="it", data=raw)
    bench.decide(bundle, bench.endorsed("alice"), bench.endorsed("bob"))
    assert "it: " in bench.why_not(bundle)


@pytest.mark.parametrize(
    "change", [{"svn": True}, {"svn": -1}, {"svn": 1 << 32}, {"svn": "1"}, {"date": "2026-11-26"}, {"validUntil": 1},
               {"source": {}}, {"source": {"digest": {"gitCommit": "x"}}}, {"profile": None}]
)  # fmt: skip
def test_predicates_that_are_none(bench: Bench, change: dict[str, Any]) -> None:
    assert "endorsed by 1" in bench.why_not(bench.endorsed("alice"), bench.endorsed("bob", **change))


@pytest.mark.parametrize(
    "subjects",
    [None, [], [1], [{"name": "x"}], [{"name": "x", "digest": {"sha256": "0"}}],
     [{"name": "x", "digest": {"sha256": "0" * 64}}, {"name": "x", "digest": {"sha256": "1" * 64}}]],
)  # fmt: skip
def test_subjects_that_are_none(bench: Bench, subjects: object) -> None:
    predicate = {"profile": "production", "svn": 1, "date": day(-1), "validUntil": day(1),
                 "source": {"digest": {"gitCommit": COMMIT}}}  # fmt: skip
    payload = json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": subjects,
                          "predicateType": formats.ENDORSEMENT, "predicate": predicate}).encode()  # fmt: skip
    assert "endorsed by 1" in bench.why_not(bench.endorsed("alice"), bench.sealed("bob", payload))


def test_a_statement_of_another_kind(bench: Bench) -> None:
    other = bench.signed("bob", "https://example.org/other", {"profile": "production"})
    assert "is of a kind that is not known" in bench.why_not(bench.endorsed("alice"), other)
