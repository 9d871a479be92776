# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit endorse` and `./doit latest`: what they sign, what they refuse; and the decision over a real registry."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.publish import kit, people
from tests.publish.kit import Server
from tests.publish.people import DAY, ENDORSE, NAME, World
from tests.publish.test_signed import Cosign, client
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.publish import checkout, publishing
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.oci import Descriptor
from tools.pipeline.repro import endorse
from tools.pipeline.sign import keys, statements
from tools.sev.formats import ENDORSEMENT


@pytest.fixture
def cosign(stranger: Callable[..., str], tmp_path: Path) -> Cosign:
    return Cosign(run=stranger, home=kit.empty(tmp_path / "home"))


def statement_of(bundle: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return document


# ── what is signed ──


def test_a_statement_in_a_file(make_world: Callable[..., World]) -> None:
    """It has the digest of what somebody else has published, computed from what was rebuilt here."""
    made = make_world()
    subject = made.publish()
    out = made.folder / "alice.json"
    wish = replace(ENDORSE, out=str(out), key=made.keys["alice"], svn=3, days="10")
    bundle = endorse.endorse(made.built, people.result_of(made.built), wish)
    assert out.read_bytes() == bundle
    found = statement_of(bundle)
    digests = {one["name"]: one["digest"]["sha256"] for one in found["subject"]}
    assert digests["sev-artifacts"] == subject.sha256
    assert digests["vmlinuz"] == kit.sha256((made.built.folder / "vmlinuz").read_bytes())
    predicate = found["predicate"]
    assert (found["predicateType"], predicate["svn"], predicate["profile"]) == (ENDORSEMENT, 3, "production")
    assert predicate["source"]["digest"]["gitCommit"] == checkout.look(made.built.root).commit
    assert predicate["rebuilt"]["steps"] == len(people.STEPS)
    assert "digest" not in predicate
    # It counts beside what the registry has.
    made.endorse("bob", svn=3)
    made.refused(r"endorsed by 1 of the 2 principals that it takes \(bob\)")
    made.accepted("pulled", "--statement", str(out))


def test_cosign_finds_it(world: World, cosign: Cosign, server: Server) -> None:
    place = f"{server.host}/{NAME}:v1"
    words = ("verify-attestation", "--type", ENDORSEMENT, "--allow-http-registry", place)
    for name, status in (("alice", 0), ("bob", 0), ("mallory", 1)):
        cosign.bundle(*words, key=world.folder / f"{name}.pub", status=status)


def test_a_key_in_a_token(make_world: Callable[..., World], token: str) -> None:
    made = make_world()
    made.publish()
    made.keys["hsm"] = token
    public = keys.load(token, root=made.folder).public
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (made.folder / "hsm.pub").write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    made.endorse("alice", "hsm")
    policy = made.policy(principals={"vendor": ["vendor"], "alice": ["alice"], "token": ["hsm"]})
    assert "endorsed   by alice, token" in made.accepted(policy=policy)


# ── what is not ──


def test_rebuilds_that_do_not_count(make_world: Callable[..., World]) -> None:
    made = make_world()
    made.publish()
    steps = dict(people.STEPS)
    refused: dict[str, dict[str, Any]] = {
        "the rebuild took results of a cache": {"from_nothing": False},
        "the rebuild did not reproduce": {"reproduced": False},
        "1 steps were not run by the rebuild itself; first: kernel": {"made_here": {**steps, "kernel": None}},
        "2 steps were not run by the rebuild itself; first: source": {"made_here": {}},
        "first: kernel": {"made_here": {**steps, "kernel": "3" * 64}},
        "the rebuilt files are of another rebuild": {"manifest": "4" * 64},
        "commit unknown was rebuilt": {"commit": ""},
        f"commit {'5' * 40} was rebuilt": {"commit": "5" * 40},
        "is of profile 'debug'": {"profile": "debug"},
        "is not there, or of another version": {"schema": 2},
    }
    for why, changes in refused.items():
        with pytest.raises(BuildError, match=why):
            made.endorse("alice", result=people.result_of(made.built, **changes))
    with pytest.raises(BuildError, match="is not there, or of another version"):
        made.endorse("alice", result=made.folder / "none.json")
    made.endorse("alice", result=people.result_of(made.built))


def test_a_checkout_with_changes(make_world: Callable[..., World]) -> None:
    made = make_world()
    made.publish()
    result = people.result_of(made.built)
    (made.built.root / "new.patch").write_text("new\n")
    with pytest.raises(BuildError, match="with changes"):
        made.endorse("alice", result=result)
    (made.built.root / "new.patch").unlink()
    made.endorse("alice", result=result)


def test_something_else_is_published_there(make_world: Callable[..., World], tmp_path: Path) -> None:
    made = make_world()
    subject = made.publish()
    other = people.small(tmp_path / "other", {"more": b"more"})
    made.built, ours = other, made.built
    with pytest.raises(BuildError, match=f"is {subject.digest}, rebuilt was sha256:"):
        made.endorse("alice")
    made.built = ours
    made.endorse("alice")


def test_rebuilt_files_that_were_damaged(make_world: Callable[..., World]) -> None:
    made = make_world()
    made.publish()
    path = made.built.folder / "vmlinuz"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(BuildError, match="is not what SHA256SUMS says"):
        made.endorse("alice")
    path.write_bytes(good)
    made.endorse("alice")


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"key": ""}, "no key"), ({"days": "0"}, "no number of days"), ({"days": "x"}, "no number of days"),
     ({"to": "", "out": ""}, "nowhere to put"), ({"to": "https://files.example/x"}, "is no registry and no folder")],
)  # fmt: skip
def test_mistakes(make_world: Callable[..., World], changes: dict[str, Any], why: str) -> None:
    made = make_world()
    with pytest.raises(UserError, match=why):
        made.endorse("alice", **changes)


# ── over a real registry ──


def test_one_of_two(make_world: Callable[..., World]) -> None:
    made = make_world()
    made.publish()
    made.endorse("alice", "alice2", "mallory")
    policy = made.policy(principals={"vendor": ["vendor"], "alice": ["alice", "alice2"], "bob": ["bob"]})
    said = made.refused(r"endorsed by 1 of the 2 principals that it takes \(alice\)", policy=policy)
    assert "is not signed by a key of the policy" in said
    made.endorse("bob")
    made.accepted(policy=policy)


def newer(made: World, tmp_path: Path, svn: int = 2) -> Descriptor:
    """Another artifact in the same repository, as v2."""
    old, made.built = made.built, people.small(tmp_path / "newer", {"more": b"more"})
    subject = made.publish("v2")
    made.endorse("alice", "bob", tag="v2", svn=svn)
    made.built = old
    return subject


def test_rolled_back(world: World, tmp_path: Path, server: Server) -> None:
    """Once SVN 2 was placed, 1 is refused: by its own tag, by digest, and where v2's tag was put back to it."""
    world.accepted("first")
    newer(world, tmp_path)
    ref = f"{server.host}/{NAME}:v2"
    status, said = world.pull("second", ref=ref)
    assert status == 0, said
    world.refused("has SVN 1, and 2 was accepted here before")
    old = client_of(server).resolve("v1")
    assert old is not None
    world.refused("2 was accepted here before", ref=f"{server.host}/{NAME}@{old.descriptor.digest}")
    client_of(server).manifest(old, "v2")
    world.refused("2 was accepted here before", ref=ref)
    # The control: somebody who has never seen the newer one.
    world.accepted("third", state="another", ref=ref)


def client_of(server: Server) -> Any:
    found = client(server)
    assert found is not None
    return found


def test_a_stale_tag_is_caught_by_latest(world: World, tmp_path: Path, server: Server) -> None:
    """Also by somebody who sees the repository for the first time: the tag still names what is revoked."""
    policy = world.policy(latest=True)
    world.refused('has no statement "latest" here', policy=policy)
    world.latest("alice", "bob")
    world.accepted("before", policy=policy, state="first")
    newer(world, tmp_path)
    world.latest("alice", "bob", tag="v2", svn=2)
    said = world.refused("has SVN 1, and the same principal has said 2", policy=policy, state="second")
    assert "endorsed by 0 of the 2" in said
    status, said = world.pull("after", ref=f"{server.host}/{NAME}:v2", policy=policy, state="second")
    assert status == 0, said


def test_latest_that_has_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = world.policy(latest=True)
    now = ambient.now()
    with monkeypatch.context() as patch:
        patch.setattr("tools.pipeline.base.ambient.now", lambda: now - 31 * DAY)
        world.latest("alice", "bob")
    world.refused('whose "latest" has ended', policy=policy)
    world.latest("alice", "bob")
    world.accepted(policy=policy)


def test_an_endorsement_that_is_old(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_world()
    made.publish()
    now = ambient.now()
    with monkeypatch.context() as patch:
        patch.setattr("tools.pipeline.base.ambient.now", lambda: now - 91 * DAY)
        made.endorse("alice", "bob", days="365")
    policy = made.policy(**{"maximum-age-days": 90})  # type: ignore[arg-type]  # a key of the policy
    made.refused("older than 90 days", policy=policy)
    made.endorse("alice", "bob")
    made.accepted(policy=policy)


def test_latest_beside_those_of_others(world: World, server: Server) -> None:
    """Ours takes the place of our older one, and goes up only."""
    world.latest("alice", "bob", "alice")
    found = client_of(server).resolve("production.latest")
    assert len(json.loads(found.data)["layers"]) == 2
    world.latest("alice", svn=5)
    with pytest.raises(UserError, match="4 is lower than 5"):
        world.latest("alice", svn=4)
    world.latest("bob", svn=4)


def test_what_strangers_put_under_the_tag(world: World, server: Server) -> None:
    """Annotations that are no numbers stay where they are; what is no manifest is one line."""
    world.latest("alice")
    found = client_of(server).resolve("production.latest")
    document = json.loads(found.data)
    document["layers"][0]["annotations"]["sev-artifacts.svn"] = "many"
    client_of(server).manifest(oci.of_bytes(json.dumps(document).encode(), oci.MANIFEST), "production.latest")
    world.latest("alice")
    world.latest("bob")
    assert len(json.loads(client_of(server).resolve("production.latest").data)["layers"]) == 2


def test_a_statement_that_is_attached_to_another(world: World, tmp_path: Path, server: Server) -> None:
    """What alice and bob say of v1 is put to v2, which nobody has endorsed."""
    old = client_of(server).resolve("v1").descriptor
    world.built = people.small(tmp_path / "other", {"more": b"more"})
    subject = world.publish("v2")
    for entry in client_of(server).referrers(old):
        (layer,) = json.loads(client_of(server).resolve(entry["digest"]).data)["layers"]
        bundle = client_of(server).read(oci.descriptor_of(layer, where="test"))
        if statement_of(bundle)["predicateType"] == ENDORSEMENT:
            moved = oci.of_bytes(bundle, statements.BUNDLE)
            whole = target.whole(statements.BUNDLE, [moved], annotations={}, subject=subject)
            for content in whole.blobs:
                client_of(server).blob(content)
            client_of(server).attach(whole.manifest, subject)
    said = world.refused("endorsed by 0 of the 2", ref=f"{server.host}/{NAME}:v2")
    assert said.count("is on other bytes") == 2
    world.endorse("alice", "bob", tag="v2")
    world.accepted(ref=f"{server.host}/{NAME}:v2")


def test_published_by_somebody_else(make_world: Callable[..., World]) -> None:
    made = make_world()
    made.publish(by="mallory")
    made.endorse("alice", "bob")
    made.refused("no provenance that counts, by vendor")
    made.accepted("without", policy=made.policy(provenance=[]))
    made.publish()
    made.accepted()


def test_a_folder_moved_by_a_stranger(
    make_world: Callable[..., World], stranger: Callable[..., str], server: Server, tmp_path: Path
) -> None:
    """Published and endorsed in an image layout; oras takes it to a registry with all that is attached."""
    made = make_world()
    layout = str(tmp_path / "layout")
    publishing.run(made.built, kit.wish(layout, tag="v1", key=made.keys["vendor"], without_tools=True))
    for name in ("alice", "bob"):
        wish = replace(ENDORSE, to=layout, key=made.keys[name])
        endorse.endorse(made.built, people.result_of(made.built), wish)
    stranger("oras", "cp", "-r", "--from-oci-layout", "--to-plain-http", f"{layout}:v1", f"{server.host}/{NAME}:v1")
    made.accepted()
