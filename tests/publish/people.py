# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""People who publish, endorse and pull a small artifact; what they have rebuilt is made up, all else is real."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.publish import kit
from tools.launcher.cli.main import main
from tools.pipeline.publish import checkout, publishing
from tools.pipeline.publish.publishing import Built
from tools.pipeline.registry.oci import Descriptor
from tools.pipeline.repro import endorse, rebuild
from tools.sev.formats import SUMS_NAME

STEPS = {"source": "1" * 64, "kernel": "2" * 64}
NAME = "team/thing"
DAY = 86_400


def small(root: Path, more: Mapping[str, bytes] = {}) -> Built:
    """A small checkout whose output folder has a manifest of two steps."""
    steps = [{"name": name, "key": key} for name, key in STEPS.items()]
    manifest = json.dumps({"steps": steps}).encode()
    return kit.small_checkout(root, more={"manifest.json": manifest, **more})


def result_of(built: Built, **changes: Any) -> Path:
    """What ./doit rebuild would have written of this output folder."""
    document = {
        "schema": rebuild.SCHEMA,
        "manifest": kit.sha256((built.folder / "manifest.json").read_bytes()),
        "profile": built.profile,
        "from_nothing": True,
        "reproduced": True,
        "commit": checkout.look(built.root).commit,
        "made_here": {step["name"]: step["key"] for step in steps_of(built)},
        **changes,
    }
    path = built.root / "cache/result.json"
    path.write_text(json.dumps(document))
    return path


def steps_of(built: Built) -> list[dict[str, str]]:
    steps: list[dict[str, str]] = json.loads((built.folder / "manifest.json").read_bytes())["steps"]
    return steps


def write_key(folder: Path, name: str, *, p256: bool = False) -> str:
    """A private key's file; the public one is beside it, as NAME.pub."""
    key = ec.generate_private_key(ec.SECP256R1()) if p256 else ed25519.Ed25519PrivateKey.generate()
    pem, private = serialization.Encoding.PEM, folder / f"{name}.key"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    (folder / f"{name}.pub").chmod(0o644)
    return str(private)


ENDORSE = endorse.Wish(to="", out="", key="", days="365", svn=1, ca="", plain_http=True)


@dataclass
class World:
    """A registry's repository, keys of vendor, alice, bob and mallory, and somebody who pulls."""

    built: Built
    host: str
    folder: Path
    capfd: pytest.CaptureFixture[str] | None = None
    options: Sequence[str] = ("--plain-http",)
    ca: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there = self.folder.exists()
        self.folder.mkdir(exist_ok=True)
        for name in ("vendor", "alice", "alice2", "bob", "mallory"):
            path = self.folder / f"{name}.key"
            self.keys[name] = str(path) if there else write_key(self.folder, name, p256=name in {"bob", "alice2"})

    @property
    def place(self) -> str:
        return f"{self.host}/{NAME}"

    def publish(self, tag: str = "v1", *, by: str = "vendor", **options: object) -> Descriptor:
        words = kit.wish(f"{self.place}:{tag}", key=self.keys[by], without_tools=True, ca=self.ca,
                         plain_http=not self.ca, **options)  # fmt: skip
        return publishing.run(self.built, words)

    def endorse(self, *people: str, tag: str = "v1", result: Path | None = None, **options: Any) -> None:
        for name in people:
            self._endorse(name, tag, result, options)

    def _endorse(self, name: str, tag: str, result: Path | None, options: Mapping[str, Any]) -> None:
        common = {"to": f"{self.place}:{tag}", "key": self.keys[name], "ca": self.ca, "plain_http": not self.ca}
        endorse.endorse(self.built, result or result_of(self.built), replace(ENDORSE, **{**common, **options}))

    def latest(self, *people: str, tag: str = "v1", svn: int = 1, days: str = "30") -> None:
        for name in people:
            words = replace(ENDORSE, to=f"{self.place}:{tag}", key=self.keys[name], svn=svn, days=days, ca=self.ca,
                            plain_http=not self.ca)  # fmt: skip
            endorse.latest(self.built.root, words, profile="production")

    def policy(self, *, principals: Mapping[str, Sequence[str]] | None = None, **keys: object) -> Path:
        """policy.toml: vendor, alice and bob, two of whom it takes."""
        people = principals or {"vendor": ["vendor"], "alice": ["alice"], "bob": ["bob"]}
        found = {"schema": 1, "name": "test", "profile": "production", "endorsers": 2, "minimum-svn": 1,
                 "latest": False, "provenance": ["vendor"], **keys}  # fmt: skip
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in found.items() if value is not None)
        for name, files in people.items():
            text += f"[principals.{name}]\nkeys = {json.dumps([f'{file}.pub' for file in files])}\n"
        path = self.folder / "policy.toml"
        path.write_text(text)
        return path

    def pull(
        self, target: str = "pulled", *more: str, ref: str = "", policy: Path | None = None, state: str = "state"
    ) -> tuple[int, str]:
        """Status and what was said; the policy is written anew unless one is given."""
        assert self.capfd is not None
        self.capfd.readouterr()
        words = [ref or f"{self.place}:v1", "--policy", str(policy or self.policy()), "-o", str(self.folder / target)]
        status = main(["pull", *words, "--state", str(self.folder / state), *self.options, *more])
        out, err = self.capfd.readouterr()
        assert "Traceback" not in err
        return status, out + err

    def files(self, target: str = "pulled") -> dict[str, bytes]:
        folder = self.folder / target
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def files_with_sources(self) -> set[str]:
        self.accepted("with sources", "--sources")
        return set(self.files("with sources"))

    def accepted(self, target: str = "pulled", *more: str, **options: Any) -> str:
        """It is placed, whole."""
        status, said = self.pull(target, *more, **options)
        assert status == 0, said
        found = self.files(target)
        for line in (self.built.folder / SUMS_NAME).read_text().splitlines():
            assert kit.sha256(found[line[66:]]) == line[:64]
        return said

    def refused(self, why: str, *more: str, **options: Any) -> str:
        """Status 1, and nothing placed."""
        status, said = self.pull("refused", *more, **options)
        assert status == 1, said
        assert re.search(why, said), said
        left = [path.name for path in self.folder.iterdir() if "refused" in path.name]
        assert not left
        return said


Make = Callable[..., World]
