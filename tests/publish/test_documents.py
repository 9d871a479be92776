# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is attached beside provenance and tools: found by strangers, signed where somebody relies on it, once."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.publish.conftest import Run
from tests.publish.kit import Server, wish
from tests.publish.test_signed import Cosign, client, unpacked, write_key
from tools.pipeline.publish import publishing
from tools.pipeline.publish.documents import Document
from tools.pipeline.publish.publishing import Built

VEX = "application/vnd.cyclonedx+json"


@pytest.fixture
def cosign(stranger: Run, tmp_path: Path) -> Cosign:
    return Cosign(run=stranger, home=tmp_path)


def with_documents(built: Built, state: str = "in_triage") -> Built:
    vex = json.dumps({"bomFormat": "CycloneDX", "vulnerabilities": [{"analysis": {"state": state}}]}).encode()
    day = "2026-09-28T00:00:00Z"
    return replace(
        built,
        documents=lambda subject: [
            Document(name="vex.cdx.json", media_type=VEX, data=vex, created=day,
                     predicate="https://cyclonedx.org/bom"),
            Document(name="report.html", media_type="text/html", data=f"<p>{subject}".encode(), created=day),
        ],
    )  # fmt: skip


def kinds(server: Server, subject: object) -> list[str]:
    return sorted(str(one["artifactType"]) for one in client(server).referrers(subject))  # type: ignore[arg-type]


def test_documents_are_attached_once(built: Built, server: Server, cosign: Cosign, tmp_path: Path) -> None:
    key, public = write_key(ed25519.Ed25519PrivateKey.generate(), tmp_path, "ours")
    _, other = write_key(ed25519.Ed25519PrivateKey.generate(), tmp_path, "other")
    place = f"{server.host}/team/thing:v1"
    plain = publishing.run(built, wish(place, key=key))
    before = kinds(server, plain)
    for _ in range(2):
        subject = publishing.run(with_documents(built), wish(place, key=key))
        # The artifact's digest stays what its bytes say.
        assert subject == plain
        bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
        assert kinds(server, subject) == sorted([*before, VEX, "text/html", bundle])
    words = (
        "verify-attestation",
        "--type",
        "cyclonedx",
        "--allow-http-registry",
        f"{server.host}/team/thing@{subject.digest}",
    )
    assert "in_triage" in unpacked(cosign.bundle(*words, key=public))
    cosign.bundle(*words, key=other, status=1)
    # Another judgement comes beside it.
    publishing.run(with_documents(built, "resolved"), wish(place, key=key))
    assert len(kinds(server, subject)) == len(before) + 5


def test_plain_files_have_them_too(built: Built, tmp_path: Path, stranger: Run, server: Server) -> None:
    subject = publishing.run(with_documents(built), wish(str(tmp_path / "layout")))
    blob = tmp_path / "layout/blobs/sha256" / hashlib.sha256(f"<p>{subject.digest}".encode()).hexdigest()
    assert blob.read_text() == f"<p>{subject.digest}"
    assert "vex.cdx.json" in stranger("oras", "discover", "--oci-layout", "-v", f"{tmp_path}/layout:0.1.0")
