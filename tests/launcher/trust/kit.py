# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Statements by people with keys, made with the pipeline's own code, and a policy about them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.publish.people import write_key
from tools.launcher.base.errors import CheckError
from tools.launcher.trust.artifact import Artifact, parse
from tools.launcher.trust.decision import Bundle, Decision, decide
from tools.launcher.trust.memory import Seen
from tools.launcher.trust.policy import Policy, load_policy
from tools.pipeline.sign import keys, statements
from tools.sev import formats

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
COMMIT = "c" * 40
FILES = {"vmlinuz": b"kernel", "SHA256SUMS": b"sums"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def day(number: int) -> str:
    """So many days from now."""
    return (NOW + timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def manifest(files: Mapping[str, bytes] = FILES, profile: str = "production", **more: object) -> bytes:
    layers = [
        {"digest": f"sha256:{sha256(data)}", "size": len(data), "mediaType": formats.FILE_TYPE,
         "annotations": {formats.TITLE: name}}
        for name, data in files.items()
    ]  # fmt: skip
    document = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": formats.GUEST_TYPE,
                "layers": layers, "annotations": {formats.PROFILE: profile}, **more}  # fmt: skip
    return json.dumps(document).encode()


@dataclass
class Bench:
    """Keys in a folder, and what was seen so far."""

    folder: Path
    seen: Seen = field(default_factory=Seen)
    artifact: Artifact = field(default_factory=lambda: parse(manifest(), where="test"))

    def __post_init__(self) -> None:
        for name in ("vendor", "alice", "alice2", "bob", "mallory"):
            write_key(self.folder, name, p256=name in {"bob", "alice2"})

    def policy(self, *, principals: Mapping[str, Sequence[str]] | None = None, **changes: object) -> Policy:
        people = principals or {"vendor": ["vendor"], "alice": ["alice", "alice2"], "bob": ["bob"]}
        found = {"schema": 1, "name": "test", "profile": "production", "endorsers": 2, "minimum-svn": 1,
                 "latest": False, "provenance": [], **changes}  # fmt: skip
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in found.items() if value is not None)
        text += "".join(
            f"[principals.{name}]\nkeys = {json.dumps([f'{file}.pub' for file in files])}\n"
            for name, files in people.items()
        )
        (self.folder / "policy.toml").write_text(text)
        return load_policy(self.folder / "policy.toml")

    def signed(self, by: str, kind: str, predicate: Mapping[str, Any], artifact: Artifact | None = None) -> Bundle:
        about = artifact or self.artifact
        subjects = [(formats.SUBJECT, about.sha256), *((name, file.sha256) for name, file in about.files.items())]
        payload = statements.statement(subjects, kind, predicate)
        return self.sealed(by, payload)

    def sealed(self, by: str, payload: bytes) -> Bundle:
        signer = keys.load(f"{by}.key", root=self.folder)
        return Bundle(where=f"from {by}", data=statements.bundle(payload, signer))

    def endorsed(self, by: str, *, artifact: Artifact | None = None, **changes: object) -> Bundle:
        predicate = {"profile": "production", "svn": 1, "date": day(-10), "validUntil": day(300),
                     "source": {"name": "sev-artifacts", "digest": {"gitCommit": COMMIT}}, **changes}  # fmt: skip
        return self.signed(by, formats.ENDORSEMENT, predicate, artifact)

    def latest(self, by: str, **changes: object) -> Bundle:
        predicate = {"profile": "production", "svn": 1, "date": day(-1), "validUntil": day(20), **changes}
        return self.signed(by, formats.LATEST, predicate)

    def provenance(self, by: str, *, commit: str = COMMIT, profile: str = "production", **internal: object) -> Bundle:
        source = {"name": "sev-artifacts", "digest": {"gitCommit": commit}}
        definition = {"buildType": formats.BUILD_TYPE, "externalParameters": {"profile": profile, "source": source},
                      "internalParameters": internal}  # fmt: skip
        return self.signed(by, formats.PROVENANCE, {"buildDefinition": definition})

    def decide(self, *bundles: Bundle, policy: Policy | None = None, now: datetime = NOW) -> Decision:
        return decide(policy or self.policy(), self.artifact, bundles, self.seen, now=now)

    def why_not(self, *bundles: Bundle, policy: Policy | None = None, now: datetime = NOW) -> str:
        """The error and its details; it must be one."""
        try:
            found = self.decide(*bundles, policy=policy, now=now)
        except CheckError as error:
            return "\n".join([str(error), *error.details])
        raise AssertionError(f"accepted: {found}")
