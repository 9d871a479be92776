# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Publishing a small output folder to Debian's registry; oras and skopeo as strangers who look at the result."""

import base64
import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.loopback import Between
from tests.publish import kit
from tests.publish.conftest import Run
from tests.publish.kit import Server, wish
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.publish import publishing
from tools.pipeline.publish.publishing import Built
from tools.pipeline.registry import oci
from tools.pipeline.registry.layout import Layout


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_strangers_get_the_same_bytes(built: Built, server: Server, stranger: Run, tmp_path: Path) -> None:
    place = f"{server.host}/team/thing"
    subject = publishing.run(built, wish(f"{place}:v1"))
    stranger("oras", "pull", "--plain-http", f"{place}:v1", "-o", tmp_path / "pulled")
    pulled = files_of(tmp_path / "pulled")
    for name, data in files_of(built.folder).items():
        assert pulled[name] == data, name
    assert sorted(name for name in pulled if name.startswith("sources/")) == [
        "sources/checkout.tar", "sources/edk2_1.0.tar.xz", "sources/linux_1.0.tar.xz",
    ]  # fmt: skip
    assert kit.sha256(pulled["sources/linux_1.0.tar.xz"]) == built.sources[0].pin.sha256
    found = stranger("oras", "resolve", "--plain-http", f"{place}:v1").strip()
    assert found == subject.digest
    # The tools are attached; oras finds them by the tag scheme.
    listed = stranger("oras", "discover", "--plain-http", "--format", "json", f"{place}:v1")
    assert sorted(one["artifactType"] for one in json.loads(listed)["manifests"]) == [
        "application/vnd.in-toto+json", "application/vnd.sev-artifacts.tools.v1",
    ]  # fmt: skip
    # To another place and back: the digest stays.
    stranger(
        "skopeo",
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        f"docker://{place}:v1",
        f"oci:{tmp_path}/layout:v1",
    )
    assert subject.digest in (tmp_path / "layout/index.json").read_text()


def test_the_checkout_is_in_it(built: Built, server: Server) -> None:
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    manifest = json.loads(server.get("team/thing/manifests/" + resolve(server, "v1")))
    (layer,) = [one for one in manifest["layers"] if one["annotations"][oci.TITLE] == "sources/checkout.tar"]
    path = built.root / "checkout.tar"
    path.write_bytes(server.get(f"team/thing/blobs/{layer['digest']}"))
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    assert sorted(members) == [".gitignore", "build.sh", "recipes/expected.sha256"]
    assert {member.mtime for member in members.values()} == {0}
    assert stat.S_IMODE(members["build.sh"].mode) == 0o755
    modes = {one["annotations"][oci.TITLE]: one["annotations"].get("sev-artifacts.mode") for one in manifest["layers"]}
    assert modes["sev-launch"] == "0755"
    assert modes["vmlinuz"] is None


def resolve(server: Server, tag: str) -> str:
    folder = server.folder / f"data/docker/registry/v2/repositories/team/thing/_manifests/tags/{tag}/current/link"
    return folder.read_text().strip()


def test_the_same_bytes_give_the_same_digest_anywhere(built: Built, server: Server, tmp_path: Path) -> None:
    """Two clones with other times and names, a registry and a folder."""
    other = kit.small_checkout(tmp_path / "elsewhere/other")
    for path in other.folder.rglob("*"):
        os.utime(path, (1, 1))
    first = publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    again = publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    there = publishing.run(other, wish(str(tmp_path / "layout"), without_tools=True))
    assert first == again == there
    other.folder.joinpath("vmlinuz").write_bytes(b"another kernel")
    with pytest.raises(BuildError, match=r"out/vmlinuz: is not what SHA256SUMS says"):
        publishing.run(other, wish(str(tmp_path / "layout")))


def test_a_folder_is_a_layout_that_strangers_read(
    built: Built, stranger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # But for the provenance, which has a date, a layout is the same wherever it is made.
    monkeypatch.setattr("tools.pipeline.base.ambient.now", lambda: 2_000_000_000.0)
    folder = tmp_path / "layout"
    subject = publishing.run(built, wish(str(folder)))
    assert stranger("oras", "resolve", "--oci-layout", f"{folder}:0.1.0").strip() == subject.digest
    stranger("oras", "pull", "--oci-layout", f"{folder}:0.1.0", "-o", tmp_path / "pulled")
    assert files_of(tmp_path / "pulled").items() >= files_of(built.folder).items()
    # Another version beside it, and the first again: each tag names its own.
    before = (folder / "index.json").read_bytes()
    publishing.run(built, wish(str(folder), tag="v2"))
    publishing.run(built, wish(str(folder), tag="0.1.0"))
    listed = json.loads((folder / "index.json").read_text())["manifests"]
    names = [one["annotations"].get("org.opencontainers.image.ref.name") for one in listed]
    assert sorted(filter(None, names)) == ["0.1.0", "v2"]
    publishing.run(built, wish(str(tmp_path / "new")))
    assert (tmp_path / "new/index.json").read_bytes() == before
    with pytest.raises(UserError, match="is no OCI image layout, and not empty"):
        Layout(built.folder)


# ── what is refused ──


def changed(built: Built) -> None:
    (built.root / "build.sh").write_text("#!/bin/sh\nother\n")


def untracked(built: Built) -> None:
    (built.root / "new.patch").write_text("new\n")


def unexpected(built: Built) -> None:
    path = built.root / "recipes/expected.sha256"
    path.write_text(path.read_text().replace("a", "b", 1))
    kit.commit(built.root, "git", "commit", "-qam", "second")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed, r"the checkout differs from its commit: build\.sh"),
        (untracked, r"the checkout differs from its commit: new\.patch"),
        (unexpected, r"differs from recipes/expected\.sha256: out/"),
    ],
)
def test_what_is_not_as_committed_needs_words(
    built: Built, tmp_path: Path, change: Callable[[Built], None], says: str
) -> None:
    change(built)
    with pytest.raises(BuildError, match=says):
        publishing.run(built, wish(str(tmp_path / "layout")))
    assert not (tmp_path / "layout").exists()
    publishing.run(built, wish(str(tmp_path / "layout"), although="the reason is this test"))
    assert (tmp_path / "layout/index.json").exists()


def test_what_is_committed_and_expected_needs_none(built: Built, tmp_path: Path) -> None:
    publishing.run(built, wish(str(tmp_path / "layout")))
    assert (tmp_path / "layout/index.json").exists()


def test_no_checkout_of_gits(built: Built, tmp_path: Path) -> None:
    (built.root / ".git").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"not a git repository.*publish from a clone"):
        publishing.run(built, wish(str(tmp_path / "layout")))
    kit.commit(tmp_path, "git", "init", "-q")
    with pytest.raises(UserError, match="only a part of one"):
        publishing.run(built, wish(str(tmp_path / "layout")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": ""}, "no place to publish to"),
        ({"to": f"registry.example/a@sha256:{'0' * 64}"}, "has a digest"),
        ({"to": "registry.example/a:b", "tag": "c"}, "--to has a tag already"),
        ({"to": "./layout", "tag": "a/b"}, "is no tag"),
        ({"to": "registry.example/a:b", "ca": "none.pem"}, r"none\.pem: is not there"),
    ],
)
def test_options(built: Built, options: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        publishing.run(built, wish(**options))


# ── who may, and over what ──


def test_a_registry_with_a_login(
    built: Built, make_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: Run
) -> None:
    server = make_server(login=True)
    place = f"{server.host}/team/thing:v1"
    with pytest.raises(BuildError, match=f"log in first: docker login {server.host}"):
        publishing.run(built, wish(place))
    auth = base64.b64encode(f"{kit.USER}:wrong".encode()).decode()
    config = kit.empty(tmp_path / "docker") / "config.json"
    monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
    config.write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
    with pytest.raises(BuildError, match="does not accept the login"):
        publishing.run(built, wish(place))
    assert not server.tags("team/thing")
    auth = base64.b64encode(f"{kit.USER}:{kit.PASSWORD}".encode()).decode()
    config.write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
    subject = publishing.run(built, wish(place))
    found = stranger("oras", "resolve", "--plain-http", "--registry-config", config, place)
    assert found.strip() == subject.digest


def test_tls(built: Built, make_server: Callable[..., Server], stranger: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    server = make_server(tls=True)
    place = f"{server.host}/team/thing:v1"
    with pytest.raises(BuildError, match="its certificate was not accepted; --ca FILE"):
        publishing.run(built, wish(place, plain_http=False))
    assert not server.tags("team/thing")
    subject = publishing.run(built, wish(place, plain_http=False, ca=str(server.ca)))
    assert stranger("oras", "resolve", "--ca-file", server.ca, place).strip() == subject.digest


def test_tls_is_not_left_out_by_itself(built: Built, server: Server) -> None:
    with pytest.raises(BuildError, match="does not speak TLS; --plain-http"):
        publishing.run(built, wish(f"{server.host}/team/thing:v1", plain_http=False))


# ── cut short ──


@pytest.mark.parametrize("share", [0.02, 0.4, 0.7, 0.97])
def test_a_publisher_that_is_killed(built: Built, server: Server, share: float) -> None:
    """SIGKILL when so much has gone to the registry."""
    total = sum(path.stat().st_size for path in built.folder.rglob("*") if path.is_file()) + (2 << 20) + 500_000
    kit.killed_in(lambda host: publishing.run(built, wish(f"{host}/team/thing:v1")), server, after=int(total * share))
    assert not server.tags("team/thing")
    subject = publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    assert resolve(server, "v1") == subject.digest


def test_a_registry_that_is_killed(built: Built, server: Server) -> None:
    between = Between(server.port, after=3_500_000, then=server.kill)
    with pytest.raises(BuildError, match="4 tries"):
        publishing.run(built, wish(f"{between.host}/team/thing:v1"))
    between.close()
    server.start()
    assert not server.tags("team/thing")
    there = {path.name for path in (server.folder / "data/docker/registry/v2/blobs/sha256").glob("*/*")}
    assert there, "what was complete is kept"
    subject = publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    assert resolve(server, "v1") == subject.digest


def test_a_blob_that_the_registry_has_spoiled_is_seen(built: Built, server: Server) -> None:
    """A blob of another length; one of the same length is for whoever pulls to find."""
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    digest = hashlib.sha256((built.folder / "vmlinuz").read_bytes()).hexdigest()
    (path,) = (server.folder / "data/docker/registry/v2/blobs/sha256").glob(f"*/{digest}/data")
    os.truncate(path, 1000)
    with pytest.raises(BuildError, match=f"has sha256:{digest} with 1000 bytes in place of {3 << 20}"):
        publishing.run(built, replace(wish(f"{server.host}/team/thing:v2")))
    assert server.tags("team/thing").count("v2") == 0
