# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an independent rebuilder runs, on good manifests and on bad ones.

With --cached, so that what this machine has built from the same inputs is not compiled again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import copy_all

Document = dict[str, Any]


@pytest.fixture
def published(artifacts: Path) -> Document:
    """The manifest that was built."""
    document = json.loads((artifacts / "manifest.json").read_bytes())
    assert isinstance(document, dict)
    return document


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A checkout of the same commit."""
    return copy_all(repository, tmp_path / "checkout")


def rebuild(checkout: Path, manifest: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`./doit rebuild` on a manifest, or on any other text."""
    path = checkout / "published.json"
    path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", "rebuild", "--manifest", str(path), "--json", "--cached"],
        cwd=checkout,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def result(done: subprocess.CompletedProcess[str]) -> Document:
    """The JSON on standard output, behind doit's own line."""
    document = json.loads(done.stdout[done.stdout.index("{") :])
    assert isinstance(document, dict)
    return document


def test_reproduced(checkout: Path, published: Document) -> None:
    """Every artifact, in words and in JSON."""
    done = rebuild(checkout, published)
    assert done.returncode == 0, done.stderr
    assert result(done)["reproduced"] is True
    assert set(result(done)["artifacts"]) == set(published["outputs"])
    for name in published["outputs"]:
        assert f"   {name} " in done.stderr
    assert done.stderr.count("reproduced, sha256") == len(published["outputs"])


def test_not_reproduced(checkout: Path, published: Document) -> None:
    """One artifact was published with other bytes: it is named, the others are not."""
    published["outputs"]["vmlinuz"]["sha256"] = "0" * 64
    done = rebuild(checkout, published)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: rebuild: ")
    assert "not reproduced: vmlinuz; " in done.stderr.splitlines()[-1]
    found = result(done)
    assert found["reproduced"] is False
    assert [name for name, entry in found["artifacts"].items() if not entry["reproduced"]] == ["vmlinuz"]


def test_another_commit_is_refused(checkout: Path, published: Document) -> None:
    """Other recipes cannot give the same bytes: said at once, with the file's name."""
    fragment = checkout / "recipes/kernel/fragments/base.config"
    fragment.write_text(fragment.read_text() + "# another\n")
    done = rebuild(checkout, published)
    assert done.returncode == 2
    assert "made from other files than this checkout's: recipes/kernel/fragments/base.config; " in done.stderr


def test_the_pins_are_the_manifests(checkout: Path, published: Document) -> None:
    """Not the checkout's: a pin that no place has is named, with the places and what helps."""
    source = next(s for s in published["inputs"]["sources"] if s["name"] == "linux")
    source["sha256"] = "0" * 64
    done = rebuild(checkout, published, SEV_ARTIFACTS_MIRROR="debian=file:///nowhere debian-security=file:///no")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"recipes/sources.lock: linux: {source['version']} (sha256 {'0' * 64}) could not be fetched" in last
    assert "file:///nowhere/pool/" in last
    assert "snapshot mirror" in last
    assert "source bundle" in last
    assert "./doit lock" in last


def _set(*keys: object, to: object) -> Callable[[Document], object]:
    def change(document: Any) -> object:
        here = document
        for key in keys[:-1]:
            here = here[key]
        here[keys[-1]] = to
        return document

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: "{", id="no-json"),
        pytest.param(lambda _: "[]", id="no-object"),
        pytest.param(lambda _: "[" * 100_000, id="deep"),
        pytest.param(_set("schema", to=2), id="schema"),
        pytest.param(_set("profile", to="other"), id="profile"),
        pytest.param(_set("profile", to="../production"), id="profile-path"),
        pytest.param(_set("outputs", to={}), id="no-outputs"),
        pytest.param(_set("outputs", "../x", to={"sha256": "0" * 64, "size": 1}), id="output-path"),
        pytest.param(_set("outputs", "vmlinuz", "sha256", to="0" * 63), id="output-digest"),
        pytest.param(_set("inputs", "files", to=[]), id="files"),
        pytest.param(_set("inputs", "files", "/etc/passwd", to={"sha256": "0" * 64, "size": 1}), id="file-path"),
        pytest.param(_set("inputs", "sources", 0, "path", to="pool/../../x"), id="source-path"),
        pytest.param(_set("inputs", "sources", 0, "kind", to="magic"), id="source-kind"),
        pytest.param(_set("inputs", "sources", 0, "size", to=1.5), id="source-size"),
        pytest.param(_set("inputs", "tools", "packages", 0, "extra", to="x"), id="unknown-key"),
        pytest.param(_set("inputs", "tools", "packages", to=[]), id="no-packages"),
        pytest.param(_set("inputs", "tools", "suite", to="x y"), id="suite"),
    ],
)
def test_a_bad_manifest_is_one_line(checkout: Path, published: Document, spoil: Callable[[Document], object]) -> None:
    """Status 2, no traceback, and the manifest's name in front."""
    done = rebuild(checkout, spoil(published))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "published.json" in lines[0]


def test_without_a_manifest(checkout: Path) -> None:
    """What to type."""
    argv = [sys.executable, "-m", "tools.pipeline.front", "rebuild"]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "./doit rebuild --manifest FILE" in done.stderr
