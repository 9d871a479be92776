# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit rebuild --watch`: a real registry, real clones and signatures; only the rebuild itself takes no time."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.publish import kit
from tests.publish.conftest import WISH, Service
from tests.publish.kit import Server
from tests.publish.liar import Answer, Liar
from tests.publish.people import NAME
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.registry import client, oci, target
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.target import Tally
from tools.pipeline.repro.watch import watcher
from tools.pipeline.sign import statements
from tools.pipeline.tasks.commands import repro
from tools.pipeline.tasks.project import Project
from tools.sev.formats import ENDORSEMENT, PROVENANCE
from tools.sev.registry.reference import Reference


def test_what_is_published_is_rebuilt_once_and_endorsed(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("", "_CONFIG", "_EXECUTE"):
        monkeypatch.setenv(f"SEV_ARTIFACTS_REMOTE{name}", "/set")
    service.look()
    service.endorsed("v1")
    assert service.log() == ["rebuild", "endorse"]
    service.look()
    # What is noted is not needed: the registry has the endorsement.
    shutil.rmtree(tmp_path / "state")
    service.look()
    assert service.log() == ["rebuild", "endorse"]
    # That of another does not count as ours.
    service.world.endorse("mallory", "alice")
    service.look("alice2")
    assert service.log() == ["rebuild", "endorse"] * 2


def test_a_week_of_absence(service: Service) -> None:
    service.look()
    for tag in ("v2", "v3", "v4"):
        service.commit(f"{tag}.txt")
        service.world.publish(tag)
    service.look()
    service.endorsed("v1", "v2", "v3", "v4")
    assert service.log() == ["rebuild", "endorse"] * 4


def test_an_endorsement_is_given_again_before_it_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ambient.now
    wish = replace(WISH, to=service.world.place, key=service.world.keys["bob"], days="8")

    def look(day: float) -> None:
        monkeypatch.setattr(ambient, "now", lambda: real() + day * 86_400)
        watcher.run(service.clone, wish)
        monkeypatch.setattr(ambient, "now", real)

    look(0)
    look(5.9)
    assert service.log() == ["rebuild", "endorse"]
    look(6.1)
    assert service.log() == ["rebuild", "endorse"] * 2
    # What nobody can rebuild any more is not: not before it is tried with success.
    (service.folder / "other").touch()
    with pytest.raises(BuildError, match="not everything"):
        look(20)
    assert service.log() == ["rebuild", "endorse"] * 2 + ["rebuild"]


def test_what_is_there_no_more_is_forgotten(service: Service, tmp_path: Path) -> None:
    def noted() -> set[str]:
        (notes,) = (tmp_path / "state").glob("sev-artifacts/watch/*/artifacts.json")
        return set(json.loads(notes.read_bytes())["artifacts"])

    service.look()
    before = noted()
    service.commit("v2.txt")
    service.world.publish("v1")  # moved: what it was has no tag any more
    service.look()
    after = noted()
    assert (len(before), len(after)) == (1, 1)
    assert before != after


def test_killed_at_any_moment(service: Service) -> None:
    (service.folder / "hold").touch()
    for count in (1, 2):
        process = service.process()
        while len(service.log()) < count:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (service.folder / "hold").unlink()
    service.look()
    service.endorsed("v1")
    assert service.log() == ["rebuild"] * 3 + ["endorse"]


def test_only_what_is_on_the_branch_is_run(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    service.look()
    service.commit("evil.txt", "side")
    service.world.publish("v2")
    with pytest.raises(BuildError, match="not everything there could be endorsed"):
        service.look()
    assert "is not on origin/HEAD" in capfd.readouterr().err
    assert service.log() == ["rebuild", "endorse"]
    # Merged: tried again.
    kit.commit(service.world.built.root, "git", "checkout", "-q", "main")
    kit.commit(service.world.built.root, "git", "merge", "-q", "side")
    time.sleep(0.1)
    service.look()
    service.endorsed("v2")


def test_other_bytes_are_never_endorsed(service: Service, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (service.folder / "other").touch()
    for _ in range(2):
        with pytest.raises(BuildError, match="not everything there could be endorsed"):
            service.look()
    said = capfd.readouterr().err
    assert said.count("was not reproduced") == 1
    # It is kept for whoever looks into it, and is not tried again.
    (kept,) = (tmp_path / "state").glob("sev-artifacts/watch/*/different/build/rebuild/result.json")
    assert json.loads(kept.read_bytes()) == {"reproduced": False}
    assert service.log() == ["rebuild"]
    # Nor does it hold up what comes next.
    (service.folder / "other").unlink()
    service.commit("v2.txt")
    service.world.publish("v2")
    with pytest.raises(BuildError, match="not everything"):
        service.look()
    service.endorsed("v2")


def test_a_registry_that_is_down(service: Service, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    server.kill()
    with pytest.raises(BuildError, match="not everything"):
        service.look()
    assert server.host in capfd.readouterr().err
    server.start()
    service.look()
    service.endorsed("v1")


def test_a_name_without_artifacts_is_said(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    service.look()
    assert "nothing of ours" not in capfd.readouterr().err
    misspelt = f"{service.world.place}s"
    watcher.run(service.clone, replace(WISH, to=misspelt, key=service.world.keys["bob"]))
    assert f"nothing of ours is published at {misspelt}" in capfd.readouterr().err


def test_strangers_things_are_left_alone(service: Service) -> None:
    """Other artifacts, statements that are none, a claim of an endorsement by who has not given it."""
    registry = client.Registry(Reference(host=service.world.host, name=NAME), Options(plain_http=True))
    image = target.whole("application/vnd.example", [oci.of_bytes(b"x", "text/plain")], annotations={})
    target.push(registry, image, [], tag="another")
    subject = registry.resolve("v1")
    assert subject is not None
    named = {"predicateType": ENDORSEMENT}
    for data in (b"no statement", b"[]", b'{"dsseEnvelope": 3}'):
        made = target.whole(
            statements.BUNDLE, [oci.of_bytes(data, statements.BUNDLE)], annotations=named, subject=subject.descriptor
        )
        target.attach(registry, target.Attachment(whole=made), subject.descriptor, Tally())
    service.look()
    service.endorsed("v1")


def test_statements_without_number_hide_none_of_another_kind(service: Service) -> None:
    service.world.endorse("mallory", "alice")
    registry = client.Registry(Reference(host=service.world.host, name=NAME), Options(plain_http=True))
    subject = registry.resolve("v1")
    assert subject is not None
    tag = oci.referrers_tag(subject.descriptor)
    listed = registry.resolve(tag)
    assert listed is not None
    statements_there = {entry["annotations"]["predicateType"]: entry for entry in json.loads(listed.data)["manifests"]}
    index = oci.index([*[statements_there[ENDORSEMENT]] * 300, statements_there[PROVENANCE]])
    registry.manifest(oci.of_bytes(index, oci.INDEX), tag)
    service.look()
    assert service.log() == ["rebuild", "endorse"]


@pytest.mark.parametrize("gives", ["same", "other"])
def test_a_stranger_claims_another_commit(service: Service, gives: str) -> None:
    """One that is merged, too. It costs a rebuild, and never the endorsement of what comes from the vendor's."""
    service.look()
    old = service.head()
    service.commit("v2.txt")
    service.world.publish("v2")
    service.claimed(old, "v2")
    if gives == "other":
        (service.folder / f"other-{old}").touch()
    service.look()
    service.endorsed("v1", "v2")
    # v2 was rebuilt at the other commit, too, where nothing could be endorsed.
    assert service.log().count("rebuild") == 3


def test_many_claims_keep_nobody_waiting(service: Service) -> None:
    """v1 has five that are false before the true one; v2 is endorsed in the first look, v1 in the second."""
    for number in range(5):
        service.commit(f"{number}.txt")
        service.claimed(service.head())
        (service.folder / f"other-{service.head()}").touch()
    service.commit("v2.txt")
    service.world.publish("v2")
    with pytest.raises(BuildError, match="not everything"):
        service.look()
    service.endorsed("v2")
    assert service.log().count("rebuild") == 4
    service.look()
    service.endorsed("v1", "v2")
    assert service.log().count("rebuild") == 7


def test_claims_that_fail_keep_the_true_one_from_no_turn(service: Service) -> None:
    """As many as are tried in a look, and before it in the list: they fail each time, and are never ruled out."""
    for number in range(3):
        service.commit(f"{number}.txt")
        service.claimed(service.head())
        (service.folder / f"failing-{service.head()}").touch()
    with pytest.raises(BuildError, match="not everything"):
        service.look()
    time.sleep(0.1)  # until what failed is tried again
    service.look()
    service.endorsed("v1")


def test_all_that_is_claimed_gives_other_bytes(service: Service) -> None:
    old = service.head()
    service.commit("v2.txt")
    service.world.publish("v2")
    service.claimed(old, "v2")
    (service.folder / "other").touch()
    for _ in range(2):
        with pytest.raises(BuildError, match="not everything"):
            service.look()
    assert service.log() == ["rebuild"] * 3, "each commit once, and never again"


@pytest.mark.parametrize("ahead", [10.0, 1e9, float("inf")])
def test_a_clock_that_was_wrong(service: Service, tmp_path: Path, ahead: float) -> None:
    """What failed while it was is not put off for ever."""
    (service.folder / "failing").touch()
    with pytest.raises(BuildError, match="not everything"):
        service.look()
    (service.folder / "failing").unlink()
    (notes,) = (tmp_path / "state").glob("sev-artifacts/watch/*/artifacts.json")
    document = json.loads(notes.read_bytes())
    (note,) = document["artifacts"].values()
    assert note["state"] == "failed"
    note["again"] = time.time() + ahead
    notes.write_text(json.dumps(document))
    if ahead < 1e6:
        with pytest.raises(BuildError, match="not everything"):
            service.look()
    else:
        service.look()
        service.endorsed("v1")


def test_all_tags_are_listed(service: Service, liar: Callable[..., Liar], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        service.world.publish(f"t{number}")
    place = Reference(host=service.world.host, name=NAME)
    registry = client.Registry(place, Options(plain_http=True))
    whole = registry.tags()
    assert {"t0", "t1", "t2", "t3", "t4", "v1"} <= set(whole)
    monkeypatch.setattr(client, "_TAGS", 2)
    assert registry.tags() == whole
    nothing = client.Registry(replace(place, name="team/none"), Options(plain_http=True))
    assert nothing.tags() == []

    def endless(answer: Answer) -> None:
        if "tags/list" in answer.path:
            answer.body = json.dumps({"tags": [f"a{time.monotonic_ns()}", f"b{time.monotonic_ns()}"]}).encode()
            answer.length = len(answer.body)

    lying = client.Registry(replace(place, host=liar(endless).host), Options(plain_http=True))
    with pytest.raises(BuildError, match="more than 200 tags"):
        lying.tags()


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("nowhere", "names no registry's host"),
        (f"127.0.0.1:1/x@sha256:{'0' * 64}", "a digest never changes"),
        ("127.0.0.1:1/x", "no key"),
    ],
)
def test_mistakes(tmp_path: Path, to: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        watcher.run(tmp_path, replace(WISH, to=to))


def test_a_mistake_is_found_before_a_rebuild(service: Service) -> None:
    wish = replace(WISH, to=service.world.place, key=service.world.keys["bob"])
    with pytest.raises(UserError, match="--days: 'a year' is no number of days"):
        watcher.run(service.clone, replace(wish, days="a year"))
    assert service.log() == []


@pytest.mark.parametrize(("option", "value"), [("key", "bob.key"), ("every", "1h"), ("once", True)])
def test_options_of_the_watch_without_it(project: Project, option: str, value: object) -> None:
    """./doit rebuild --manifest FILE --key FILE endorses nothing: said before half an hour has gone by."""
    options = {"key": "", "branch": "origin/HEAD", "every": "15m", "days": "365", "once": False, "ca": "",
               "plain_http": False}  # fmt: skip
    given = {"manifest": "none.json", "as_json": False, "cached": False, "watch": "", **options}
    with pytest.raises(UserError, match=r"none\.json"):
        repro._rebuild(project, **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')}: means nothing without --watch"):
        repro._rebuild(project, **{**given, option: value})  # type: ignore[arg-type]
