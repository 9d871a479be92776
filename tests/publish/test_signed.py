# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is signed: Debian's cosign verifies it, with the right key only, for the manifest and for each file."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.publish import kit
from tests.publish.conftest import Run
from tests.publish.kit import Server, wish
from tools.pipeline.base.errors import UserError
from tools.pipeline.publish import publishing
from tools.pipeline.publish.publishing import Built
from tools.pipeline.registry import oci
from tools.pipeline.registry.client import Registry
from tools.pipeline.registry.connection import Options
from tools.pipeline.sign import keys, statements
from tools.sev.registry.reference import Reference

MAKERS: dict[str, Callable[[], Any]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
}


def write_key(key: Any, folder: Path, name: str) -> tuple[str, Path]:
    """The private key's file, and the public one's."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.touch(0o600)
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return str(private), public


@dataclass
class Cosign:
    """Debian's cosign, without its network."""

    run: Run
    home: Path

    def __call__(self, *words: str | Path, key: Path, status: int = 0) -> str:
        common = ("--key", str(key), "--insecure-ignore-tlog=true")
        return self.run("cosign", words[0], *common, *words[1:], status=status, HOME=str(self.home))

    def bundle(self, *words: str | Path, key: Path, status: int = 0) -> str:
        root = self.home / "trusted-root.json"
        if not root.exists():
            self.run("cosign", "trusted-root", "create", "--out", root, HOME=str(self.home))
        return self(words[0], "--new-bundle-format", "--trusted-root", root, *words[1:], key=key, status=status)


@pytest.fixture
def cosign(stranger: Run, tmp_path: Path) -> Cosign:
    return Cosign(run=stranger, home=kit.empty(tmp_path / "home"))


def client(server: Server) -> Registry:
    return Registry(Reference(host=server.host, name="team/thing"), Options(plain_http=True))


@pytest.mark.parametrize("kind", MAKERS)
def test_cosign_verifies_the_manifest(built: Built, server: Server, cosign: Cosign, tmp_path: Path, kind: str) -> None:
    key, public = write_key(MAKERS[kind](), tmp_path, "ours")
    _, other = write_key(MAKERS[kind](), tmp_path, "other")
    subject = publishing.run(built, wish(f"{server.host}/team/thing:v1", key=key))
    place = f"{server.host}/team/thing@{subject.digest}"
    plain = "--allow-http-registry"
    assert subject.digest in cosign("verify", plain, place, key=public)
    cosign("verify", plain, place, key=other, status=1)
    slsa = ("verify-attestation", "--type", "slsaprovenance1", plain, place)
    assert "gitCommit" in unpacked(cosign.bundle(*slsa, key=public))
    cosign.bundle(*slsa, key=other, status=1)


def unpacked(said: str) -> str:
    """The statements in what verify-attestation prints."""
    return "".join(base64.b64decode(found).decode() for found in re.findall(r'"payload":"([^"]+)"', said))


def test_cosign_verifies_each_file(built: Built, server: Server, cosign: Cosign, tmp_path: Path) -> None:
    key, public = write_key(MAKERS["p256"](), tmp_path, "ours")
    subject = publishing.run(built, wish(f"{server.host}/team/thing:v1", key=key))
    path = tmp_path / "bundle.json"
    path.write_bytes(provenance_of(server, subject))
    words = ("verify-blob-attestation", "--bundle", path, "--type", "slsaprovenance1")
    for name in ("vmlinuz", "kata/50-x.toml", "SHA256SUMS"):
        cosign.bundle(*words, built.folder / name, key=public)
    (tmp_path / "altered").write_bytes((built.folder / "vmlinuz").read_bytes()[:-1] + b"!")
    cosign.bundle(*words, tmp_path / "altered", key=public, status=1)


def provenance_of(server: Server, subject: oci.Descriptor) -> bytes:
    registry = client(server)
    (entry,) = (one for one in registry.referrers(subject) if one["artifactType"] == statements.BUNDLE)
    manifest = registry.resolve(entry["digest"])
    assert manifest is not None
    (layer,) = json.loads(manifest.data)["layers"]
    return registry.read(oci.descriptor_of(layer, where="test"))


def statement_of(bundle: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return document


def test_the_provenance_says_what_went_in_and_why(built: Built, server: Server, tmp_path: Path) -> None:
    key, _ = write_key(MAKERS["ed25519"](), tmp_path, "ours")
    (built.root / "new.patch").write_text("new\n")
    words = wish(f"{server.host}/team/thing:v1", key=key, although="a test of words", builder="https://ci.example/1")
    subject = publishing.run(built, words)
    found = statement_of(provenance_of(server, subject))
    digests = {one["name"]: one["digest"]["sha256"] for one in found["subject"]}
    assert digests["sev-artifacts"] == subject.sha256
    for path in built.folder.rglob("*"):
        if path.is_file():
            assert digests[path.relative_to(built.folder).as_posix()] == kit.sha256(path.read_bytes())
    assert {"sbom.cdx.json", "sources/checkout.tar"} < digests.keys()
    definition = found["predicate"]["buildDefinition"]
    assert definition["internalParameters"] == {
        "because": "a test of words", "publishedAlthough": ["the checkout differs from its commit: new.patch"],
    }  # fmt: skip
    pinned = {one["digest"].get("sha256") for one in definition["resolvedDependencies"]}
    assert {*(one.pin.sha256 for one in built.sources), *(one.pin.sha256 for one in built.packages)} < pinned
    assert re.fullmatch("[0-9a-f]{40}", definition["externalParameters"]["source"]["digest"]["gitCommit"])
    assert found["predicate"]["runDetails"]["builder"]["id"] == "https://ci.example/1"
    assert str(built.root) not in json.dumps(found)
    (built.root / "new.patch").unlink()
    publishing.run(built, wish(f"{server.host}/team/other:v1", key=key))


def test_the_same_is_not_said_twice(
    built: Built, server: Server, cosign: Cosign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key, public), (second, also) = (write_key(MAKERS["p256"](), tmp_path, name) for name in ("ours", "second"))
    place = f"{server.host}/team/thing:v1"
    subject = publishing.run(built, wish(place, key=key))
    monkeypatch.setattr("tools.pipeline.base.ambient.now", lambda: 2_000_000_000.0)
    publishing.run(built, wish(place, key=key))
    assert len(client(server).referrers(subject)) == 2, "tools and one statement"
    # Somebody else's signature comes beside ours.
    publishing.run(built, wish(place, key=second))
    assert len(client(server).referrers(subject)) == 3
    for one in (public, also):
        cosign("verify", "--allow-http-registry", f"{server.host}/team/thing@{subject.digest}", key=one)


def test_without_a_key_it_is_said_and_not_signed(
    built: Built, server: Server, cosign: Cosign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, public = write_key(MAKERS["p256"](), tmp_path, "ours")
    subject = publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    kinds = {entry["artifactType"] for entry in client(server).referrers(subject)}
    assert kinds == {statements.STATEMENT, "application/vnd.sev-artifacts.tools.v1"}
    place = f"{server.host}/team/thing@{subject.digest}"
    cosign("verify", "--allow-http-registry", place, key=public, status=1)


def test_a_folder_is_signed_too(built: Built, tmp_path: Path, cosign: Cosign, server: Server, stranger: Run) -> None:
    key, public = write_key(MAKERS["ed25519"](), tmp_path, "ours")
    subject = publishing.run(built, wish(str(tmp_path / "layout"), key=key))
    again = publishing.run(built, wish(str(tmp_path / "layout"), key=key))
    assert subject == again
    # Moved to a registry by somebody else, with what is attached.
    there = f"{server.host}/team/thing"
    for name in ("0.1.0", f"{oci.referrers_tag(subject)}.sig"):
        stranger(
            "oras", "cp", "-r", "--from-oci-layout", "--to-plain-http", f"{tmp_path}/layout:{name}", f"{there}:{name}"
        )
    cosign("verify", "--allow-http-registry", f"{there}@{subject.digest}", key=public)
    slsa = ("verify-attestation", "--type", "slsaprovenance1", "--allow-http-registry", f"{there}@{subject.digest}")
    cosign.bundle(*slsa, key=public)


# ── keys ──


@pytest.mark.parametrize("kind", MAKERS)
def test_equal_data_gives_equal_signatures(tmp_path: Path, kind: str) -> None:
    key, _ = write_key(MAKERS[kind](), tmp_path, "ours")
    first, second = (keys.load(key, root=tmp_path) for _ in range(2))
    assert first.sign(b"data") == second.sign(b"data")
    assert keys.verifies(first.public, first.sign(b"data"), b"data")
    assert not keys.verifies(first.public, first.sign(b"data"), b"other")


def test_keys_that_are_refused(tmp_path: Path) -> None:
    for maker in (lambda: ec.generate_private_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)):
        key, _ = write_key(maker(), tmp_path, "other")
        with pytest.raises(UserError, match="is neither Ed25519 nor P-256"):
            keys.load(key, root=tmp_path)
    good, public = write_key(MAKERS["p256"](), tmp_path, "ours")
    Path(good).chmod(0o644)
    with pytest.raises(UserError, match="others can read"):
        keys.load(good, root=tmp_path)
    public.chmod(0o600)
    with pytest.raises(UserError, match="is a public key; name the private one"):
        keys.load(str(public), root=tmp_path)
    with pytest.raises(UserError, match="is not there; make one with"):
        keys.load("none", root=tmp_path)


# ── a token ──


def test_a_key_in_a_token(built: Built, server: Server, cosign: Cosign, token: str, tmp_path: Path) -> None:
    signer = keys.load(token, root=tmp_path)
    public = tmp_path / "token.pub"
    public.write_bytes(
        signer.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    place = f"{server.host}/team/thing:v1"
    subject = publishing.run(built, wish(place, key=token))
    publishing.run(built, wish(place, key=token))
    assert len(client(server).referrers(subject)) == 2
    cosign("verify", "--allow-http-registry", f"{server.host}/team/thing@{subject.digest}", key=public)


def test_a_token_that_does_not_answer(token: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must have exactly token, object, module-path and pin-source") as caught:
        keys.load(f"{token}&pin-value=9876", root=tmp_path)
    assert "9876" not in str(caught.value)
    with pytest.raises(Exception, match=r"--key, token test: ") as failed:
        keys.load(token.replace("object=sign", "object=none"), root=tmp_path)
    assert "1234" not in str(failed.value)
    (tmp_path / "pin").write_text("4321")
    with pytest.raises(Exception, match=r"token test: .*PIN") as failed:
        keys.load(token, root=tmp_path).sign(b"data")
    assert "4321" not in str(failed.value)
