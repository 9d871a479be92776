# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch pull`: whatever the registry does, what is placed is what was endorsed, or nothing."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loopback import Between
from tests.publish import kit
from tests.publish.conftest import Lie
from tests.publish.kit import Server
from tests.publish.liar import Answer, Liar
from tests.publish.people import NAME, World
from tests.publish.test_signed import client


def blob(server: Server, data: bytes) -> Path:
    (path,) = (server.folder / "data/docker/registry/v2/blobs/sha256").glob(f"*/{kit.sha256(data)}/data")
    return path


def vmlinuz(world: World) -> bytes:
    return (world.built.folder / "vmlinuz").read_bytes()


# ── what is placed ──


def test_what_two_endorse_is_placed(world: World, server: Server) -> None:
    said = world.accepted()
    assert "endorsed   by alice, bob" in said
    assert "published  by vendor" in said
    placed = world.files()
    assert {"sbom.cdx.json", "artifact.json", "statements/0.sigstore.json"} < placed.keys()
    assert not [name for name in placed if name.startswith("sources/")]
    assert stat.S_IMODE((world.folder / "pulled/sev-launch").stat().st_mode) == 0o755
    assert stat.S_IMODE((world.folder / "pulled/vmlinuz").stat().st_mode) == 0o644
    digest = f"sha256:{kit.sha256(placed['artifact.json'])}"
    assert digest in world.accepted("by digest", ref=f"{server.host}/{NAME}@{digest}")
    assert {"sources/checkout.tar", "sources/linux_1.0.tar.xz"} < world.files_with_sources()


def test_a_folder_that_is_there_stays_as_it_is(world: World) -> None:
    (world.folder / "mine").mkdir()
    (world.folder / "mine/file").write_text("mine")
    status, said = world.pull("mine")
    assert (status, world.files("mine")) == (2, {"file": b"mine"})
    assert "is there already" in said
    (world.folder / "mine/file").unlink()
    world.accepted("mine")


def test_as_json(world: World) -> None:
    said = world.accepted("pulled", "--json", "--quiet")
    found = json.loads(said)
    assert (found["svn"], sorted(found["endorsers"]), found["publisher"]) == (1, ["alice", "bob"], "vendor")


# ── bytes ──


@pytest.mark.parametrize("what", ["vmlinuz", "SHA256SUMS", "sbom.cdx.json"])
def test_one_flipped_bit(world: World, server: Server, what: str) -> None:
    world.accepted("before")
    path = blob(server, world.files("before")[what])
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    world.refused("sends other bytes for")
    path.write_bytes(good)
    world.accepted()


def test_a_swapped_layer(world: World, server: Server) -> None:
    """Another file of the artifact in its place, of another size; and one of the same size."""
    path, good = blob(server, vmlinuz(world)), vmlinuz(world)
    for other, why in ((b"small", "sends 5 bytes of"), (bytes(len(good)), "sends other bytes for vmlinuz")):
        path.write_bytes(other)
        world.refused(why)
    path.write_bytes(good)
    world.accepted()


def test_a_missing_file(world: World, server: Server) -> None:
    path, good = blob(server, vmlinuz(world)), vmlinuz(world)
    path.unlink()
    world.refused("404")
    path.write_bytes(good)
    world.accepted()


def add_layer(document: dict[str, list[dict[str, object]]]) -> None:
    document["layers"].append({**document["layers"][0], "annotations": {"org.opencontainers.image.title": "more"}})


def cut_layer(document: dict[str, list[dict[str, object]]]) -> None:
    del document["layers"][1]


@pytest.mark.parametrize("change", [add_layer, cut_layer])
def test_another_manifest(world: World, liar: Callable[[Lie], Liar], change: Callable[..., None]) -> None:
    """By tag it is one that nobody endorsed; by digest, and where it claims another's digest, it is a lie."""
    world.accepted("true")
    digest = f"sha256:{kit.sha256(world.files('true')['artifact.json'])}"

    def lie(answer: Answer, *, claims: bool) -> None:
        if answer.path.endswith(("/manifests/v1", digest)) and answer.status == 200 and "manifests" in answer.path:
            document = json.loads(answer.body)
            change(document)
            answer.body = json.dumps(document).encode()
            answer.length = len(answer.body)
            if not claims:
                del answer.headers["Docker-Content-Digest"]

    silent, brazen = (liar(lambda answer, claims=claims: lie(answer, claims=claims)) for claims in (False, True))  # type: ignore[misc]
    world.refused("endorsed by 0 of the 2", ref=f"{silent.host}/{NAME}:v1")
    world.refused("gives manifest sha256:.* for sha256:", ref=f"{brazen.host}/{NAME}:v1")
    for one in (silent, brazen):
        world.refused("gives manifest sha256:.* for sha256:", ref=f"{one.host}/{NAME}@{digest}")
    honest = liar(lambda _: None)
    world.accepted(ref=f"{honest.host}/{NAME}@{digest}")


def longer(answer: Answer) -> None:
    answer.body += b"!"
    answer.length = len(answer.body)


def longer_unsaid(answer: Answer) -> None:
    answer.body += b"!"
    answer.length = None


def shorter(answer: Answer) -> None:
    answer.body = answer.body[:-1]
    answer.length = len(answer.body)


def endless_claim(answer: Answer) -> None:
    answer.length = 1 << 60


SIZES: dict[Lie, str] = {longer: "sends .* bytes of", longer_unsaid: "sends more of", shorter: "sends .* bytes of",
         endless_claim: "sends .* bytes of"}  # fmt: skip


@pytest.mark.parametrize("change", SIZES, ids=lambda change: change.__name__)
def test_lies_about_sizes(world: World, liar: Callable[[Lie], Liar], change: Lie) -> None:
    wanted = kit.sha256(vmlinuz(world))
    lying = liar(lambda answer: change(answer) if answer.path.endswith(wanted) else None)
    world.refused(SIZES[change], ref=f"{lying.host}/{NAME}:v1")
    assert any(path.endswith(wanted) for path in lying.asked)
    honest = liar(lambda _: None)
    world.accepted(ref=f"{honest.host}/{NAME}:v1")


def test_a_manifest_without_end(world: World, liar: Callable[[Lie], Liar]) -> None:
    def lie(answer: Answer) -> None:
        if answer.path.endswith("/manifests/v1"):
            answer.body, answer.length = bytes(5 << 20), None

    world.refused("answers with more than", ref=f"{liar(lie).host}/{NAME}:v1")


def test_a_redirect_elsewhere(world: World, server: Server, liar: Callable[[Lie], Liar]) -> None:
    """To the right bytes, even: nobody is connected to who was not named."""

    def lie(answer: Answer) -> None:
        if "/blobs/" in answer.path:
            answer.status, answer.body, answer.length = 307, b"", 0
            answer.headers["Location"] = f"http://{elsewhere.host}{answer.path}"

    elsewhere = liar(lambda _: None)
    ref = f"{liar(lie).host}/{NAME}:v1"
    world.refused(f"redirects us to {elsewhere.host}", ref=ref)
    assert not elsewhere.asked
    world.accepted("pulled", "--allow-host", elsewhere.host, ref=ref)
    assert elsewhere.asked


def test_a_redirect_to_another_scheme(world: World, liar: Callable[[Lie], Liar]) -> None:
    """On the same host, even; the control goes on by the scheme that was asked for."""
    scheme = ""

    def lie(answer: Answer) -> None:
        if answer.path.endswith("/manifests/v1"):
            answer.status, answer.body, answer.length = 302, b"", 0
            answer.headers["Location"] = f"{scheme}://{one.host}{answer.path}?again=1"

    one = liar(lie)
    for scheme in ("https", "ftp", "file"):
        world.refused(f"redirects us to {scheme}:", ref=f"{one.host}/{NAME}:v1")
    scheme = "http"
    world.accepted(ref=f"{one.host}/{NAME}:v1")


# ── names ──


@pytest.mark.parametrize(
    "title", ["../escaped", "/etc/escaped", "a/../../escaped", "vmlinuz/below", "statements/0.sigstore.json", "a//b"]
)
def test_names_that_leave_the_folder(world: World, liar: Callable[[Lie], Liar], title: str) -> None:
    def lie(answer: Answer) -> None:
        if answer.path.endswith("/manifests/v1"):
            document = json.loads(answer.body)
            document["layers"].append(
                {**document["layers"][0], "annotations": {"org.opencontainers.image.title": title}}
            )
            answer.body = json.dumps(document).encode()
            answer.length = len(answer.body)
            del answer.headers["Docker-Content-Digest"]

    world.refused("is no file with a plain name|below a file|for `pull` to write", ref=f"{liar(lie).host}/{NAME}:v1")


# ── interrupted ──


def test_killed_in_the_middle(world: World, server: Server) -> None:
    """SIGKILL after a megabyte: nothing at the folder's name, and the same command again places it."""
    target = world.folder / "pulled"
    found: list[int] = []
    between = Between(server.port, after=1 << 20, then=lambda: os.kill(found[0], signal.SIGKILL), down=True)
    words = ["pull", f"{between.host}/{NAME}:v1", "--policy", str(world.policy()), "-o", str(target), "--plain-http",
             "--state", str(world.folder / "state")]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "tools.launcher", *words], stderr=subprocess.DEVNULL)
    found.append(process.pid)
    assert process.wait(60) == -signal.SIGKILL
    between.close()
    assert not target.exists()
    world.accepted()


def test_a_registry_that_dies_and_comes_back(world: World, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again until it is there."""
    tries: list[float] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        """Before another try. Started here: what a thread has started ends with the thread, by its wrapper."""
        if seconds < 0.5:
            sleep(seconds)
        elif not tries:
            tries.append(seconds)
            server.start()

    monkeypatch.setattr("time.sleep", pause)
    between = Between(server.port, after=1 << 20, then=server.kill, down=True)
    world.accepted(ref=f"{between.host}/{NAME}:v1")
    assert tries
    between.close()


def test_what_has_arrived_is_not_asked_for_again(world: World, liar: Callable[[Lie], Liar]) -> None:
    """A connection that breaks in the middle of a file; and one that goes on at another place than was asked for."""
    wanted = kit.sha256(vmlinuz(world))
    cut: list[str] = []

    def breaks(answer: Answer) -> None:
        if answer.path.endswith(wanted) and len(cut) < 1:
            cut.append(answer.path)
            answer.body = answer.body[: 1 << 20]

    def elsewhere(answer: Answer) -> None:
        breaks(answer)
        if answer.status == 206:
            answer.headers["Content-Range"] = answer.headers["Content-Range"].replace(str(1 << 20), "0", 1)

    broken = liar(breaks)
    world.accepted(ref=f"{broken.host}/{NAME}:v1")
    assert [given for path, given in broken.ranges if path.endswith(wanted)] == ["", f"bytes={1 << 20}-"]
    cut.clear()
    world.refused("sends another part of", ref=f"{liar(elsewhere).host}/{NAME}:v1")


def test_a_registry_that_lists_referrers_itself(world: World, server: Server, liar: Callable[[Lie], Liar]) -> None:
    """The referrers API of distribution 1.1, which Debian's registry has not: answered by the liar from the tag."""
    world.accepted("true")
    digest = kit.sha256(world.files("true")["artifact.json"])
    found = client(server).resolve(f"sha256-{digest}")
    assert found is not None
    listed = found.data

    def lie(answer: Answer, *, own: bool) -> None:
        if "/referrers/" in answer.path:
            body = listed if own else b'{"schemaVersion": 2, "manifests": []}'
            answer.status, answer.body, answer.length = 200, body, len(body)
            answer.headers = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
        elif answer.path.endswith(f"/manifests/sha256-{digest}"):
            answer.status, answer.body, answer.length = 404, b"", 0

    full, empty = (liar(lambda answer, own=own: lie(answer, own=own)) for own in (True, False))  # type: ignore[misc]
    world.accepted(ref=f"{full.host}/{NAME}:v1")
    world.refused("endorsed by 0 of the 2", ref=f"{empty.host}/{NAME}:v1")
