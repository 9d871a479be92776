# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What report.html shows, read from an output folder and from what other commands have left in build/.

out/manifest.json, launch-digests.json, SHA256SUMS ── what was built from what
graph of steps ── how long each took
build/bench/results.json, build/repro, build/rebuild ── boot, reproducibility; absent where nobody ran them
statements of others ── who endorsed

Nothing of these files is believed to be harmless text: the page escapes all of it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.graph import Row
from tools.pipeline.report.states import Report
from tools.sev.formats import DIGESTS_NAME

_LIMIT = 16 << 20  # bytes of any one of the files
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file of the output folder; size in bytes, and what it was made from, in words."""

    name: str
    size: int
    sha256: str
    made_from: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A pinned source that went in."""

    name: str
    version: str
    licence: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A fragment of the kernel's configuration: what it is for, and its options with the values that came out."""

    name: str
    about: str
    options: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Endorsement:
    """A statement of somebody who rebuilt. Its signature was not checked."""

    key: str
    created: str
    says: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it. `verdict` says how the folder compares with what the commit is expected to give.

    `measured` are launch digests: mode and digest. `boot` are lines: what, measured, beside.
    """

    project: str
    version: str
    profile: str
    commit: str
    artifacts: Sequence[Artifact]
    sources: Sequence[Source]
    tools: Sequence[tuple[str, int]]
    inputs: int
    measured: Sequence[tuple[str, str]]
    machine: str
    steps: Sequence[Row]
    topics: Sequence[Topic]
    cves: Report
    good: bool
    verdict: str
    boot: Sequence[tuple[str, str, str]] = ()
    boot_commit: str = ""
    rebuilt: Sequence[tuple[str, str]] = ()
    endorsements: Sequence[Endorsement] = ()
    digest: str = ""


def load(path: Path) -> Any:
    """A JSON file that others have written; None when it is not there. BuildError when it is none."""
    try:
        with path.open("rb") as stream:
            return json.loads(stream.read(_LIMIT))
    except OSError:
        return None
    except (ValueError, RecursionError):
        raise BuildError("is no JSON", where=f"{path.parent.name}/{path.name}", hint="build it again") from None


def folder(path: Path, made_from: Mapping[str, Sequence[str]], sums: Mapping[str, str]) -> dict[str, Any]:
    """What an output folder says of itself: arguments of Facts. `sums`: name → SHA-256 of each file in it."""
    manifest = load(path / "manifest.json")
    digests = load(path / DIGESTS_NAME)
    where = f"{path.name}/manifest.json"
    try:
        sources = [
            Source(name=str(one["name"]), version=str(one["version"]), licence=str(one["licence"]),
                   sha256=str(one["sha256"]))
            for one in manifest["inputs"]["sources"]
        ]  # fmt: skip
        found: dict[str, Any] = {
            "project": str(manifest["project"]["name"]),
            "version": str(manifest["project"]["version"]),
            "profile": str(manifest["profile"]),
            "sources": sources,
            "tools": [(str(name), len(tree["packages"])) for name, tree in sorted(manifest["inputs"]["tools"].items())],
            "inputs": len(manifest["inputs"]["files"]),
        }
        where = f"{path.name}/{DIGESTS_NAME}"
        set_up = digests["configured"]
        found["measured"] = [(str(mode), str(value)) for mode, value in sorted(set_up["digests"].items())]
        found["machine"] = f"{set_up['cpu']}, {set_up['vcpus']} vCPU"
    except _MALFORMED:
        raise BuildError("has not what the report needs", where=where, hint="build it again") from None
    found["artifacts"] = [
        Artifact(name=name, size=(path / name).stat().st_size, sha256=sha256, made_from=made_from.get(name, ()))
        for name, sha256 in sorted(sums.items())
    ]
    return found


def bench(build: Path) -> tuple[list[tuple[str, str, str]], str]:
    """The lines about booting of the last benchmark, and its commit."""
    found = load(build / "bench/results.json")
    try:
        rows = found["parts"]["boot"]["rows"]
        return [(str(r["what"]), str(r["measured"]), str(r["beside"])) for r in rows], str(found["commit"])
    except _MALFORMED:
        return [], ""


def rebuilt(build: Path) -> list[tuple[str, str]]:
    """What ./doit repro and ./doit rebuild found when they last ran here: what, verdict."""
    lines = []
    for path in sorted((build / "repro").glob("*/result.json")):
        found = load(path)
        try:
            count = len(found["variations"])
            said = "the same bytes twice" if found["reproducible"] is True else "NOT the same bytes"
            lines.append((f"./doit repro, {found['target']}", f"{said}, in environments that differ in {count} ways"))
        except _MALFORMED:
            continue
    found = load(build / "rebuild/result.json")
    try:
        outputs = found["artifacts"].values()
        good = sum(one["reproduced"] is True for one in outputs)
        lines.append(("./doit rebuild", f"{good} of {len(outputs)} files of a published manifest reproduced"))
    except _MALFORMED:
        pass
    return lines


def endorsements(where: Path | None) -> list[Endorsement]:
    """Statements in a folder: sigstore bundles, *.json. What is none is left out."""
    found = []
    for path in sorted(where.glob("*.json")) if where else ():
        try:
            document = load(path)
            statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
            predicate = statement["predicate"]
            if "endorsement" not in statement["predicateType"]:
                continue
            words = [f"{name} {value}" for name, value in sorted(predicate.items()) if isinstance(value, (str, int))]
            key = str(document["verificationMaterial"]["publicKey"]["hint"])
        except (*_MALFORMED, BuildError):
            continue
        found.append(Endorsement(key=key, created=str(predicate.get("date", "")), says=", ".join(words)))
    return found


def topics(fragments: Sequence[tuple[str, str]], values: Mapping[str, str]) -> list[Topic]:
    """The configuration by its fragments (name, text); `values` has what came out, by symbol without CONFIG_."""
    found = []
    for name, text in fragments:
        lines = text.splitlines()
        comment: list[str] = []
        for line in lines:
            if not line.startswith("#") or "SPDX" in line:
                if comment:
                    break
                continue
            if line.removeprefix("#").strip():
                comment.append(line.removeprefix("#").strip())
        about = " ".join(comment).partition(". ")[0].rstrip(".")
        symbols = dict.fromkeys(
            line.removeprefix("# ").partition("=")[0].partition(" ")[0]
            for line in lines
            if line.startswith(("CONFIG_", "# CONFIG_"))
        )
        found.append(
            Topic(
                name=name,
                about=about,
                options=[(name, values.get(name.removeprefix("CONFIG_"), "n")) for name in symbols],
            )
        )
    return found
