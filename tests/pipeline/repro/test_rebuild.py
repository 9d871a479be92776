# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an independent rebuilder runs, on good manifests and on bad ones.

With --cached, so that what this machine has built from the same inputs is not compiled again.
"""

import copy
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
Change = Callable[[Document], object]
ZEROS = "0" * 64


@pytest.fixture(scope="module")
def built(artifacts: Path) -> Document:
    """The manifest of the artifacts."""
    document = json.loads((artifacts / "manifest.json").read_bytes())
    assert isinstance(document, dict)
    return document


@pytest.fixture
def published(built: Document) -> Document:
    """The same, to spoil."""
    return copy.deepcopy(built)


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the same commit."""
    return copy_all(repository, tmp_path_factory.mktemp("rebuild") / "checkout")


def rebuild(checkout: Path, manifest: object) -> subprocess.CompletedProcess[str]:
    """`./doit rebuild` on a manifest, or on any other text."""
    path = checkout / "published.json"
    path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return subprocess.run(
        [sys.executable, "-m", "tools.pipeline.front", "rebuild", "--manifest", str(path), "--json", "--cached"],
        cwd=checkout,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def result(done: subprocess.CompletedProcess[str]) -> Document:
    """The JSON on standard output, between the lines about the task."""
    document, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    assert isinstance(document, dict)
    return document


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The only error line; there is no traceback."""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def step_of(document: Document, output: str) -> Document:
    """The step that makes an artifact."""
    wanted = document["outputs"][output]
    found: Document = next(step for step in document["steps"] if wanted in step["outputs"].values())
    return found


def claim_other_bytes(document: Document, output: str) -> Document:
    """The manifest of somebody whose step gave other bytes; the step."""
    step = step_of(document, output)
    name = next(name for name, entry in step["outputs"].items() if entry == document["outputs"][output])
    for entry in (step["outputs"][name], document["outputs"][output]):
        entry["sha256"] = ZEROS
    return step


# ── what comes out ──


def test_reproduced(checkout: Path, published: Document) -> None:
    """Every artifact, in words and in JSON."""
    done = rebuild(checkout, published)
    assert done.returncode == 0, done.stderr
    found = result(done)
    assert found["reproduced"] is True
    assert set(found["artifacts"]) == set(published["outputs"])
    assert (found["begins"], found["manifest_differs_in"]) == (None, None)
    for name in published["outputs"]:
        assert f"   {name} " in done.stderr
    assert done.stderr.count("reproduced, sha256") == len(published["outputs"])
    # Whatever came from the cache was not run by the rebuild itself.
    assert set(found["made_here"]) == {step["name"] for step in published["steps"]}
    assert not any(found["made_here"].values())
    assert found["commit"] == "", "this copy is no clone of git's"


def test_not_reproduced(checkout: Path, published: Document) -> None:
    """One artifact was published with other bytes: it is named, with the step in which the difference begins."""
    step = claim_other_bytes(published, "vmlinuz")["name"]
    done = rebuild(checkout, published)
    assert done.returncode == 1
    begins = f"the difference begins in step {step} (bzImage): it ran the same command on the same inputs"
    assert f"not reproduced: vmlinuz; {begins}; " in error(done)
    found = result(done)
    assert found["reproduced"] is False
    assert [name for name, entry in found["artifacts"].items() if not entry["reproduced"]] == ["vmlinuz"]
    assert found["begins"] == {"step": step, "outputs": ["bzImage"], "others": []}


def test_a_difference_begins_in_the_first_step_that_differs(checkout: Path, published: Document) -> None:
    """Not in those that took its output; what was run was something else, too."""
    claim_other_bytes(published, "vmlinuz")
    claim_other_bytes(published, "launch-digests.json")
    source = next(step for step in published["steps"] if "gen_init_cpio.c" in step["outputs"])
    source["outputs"]["gen_init_cpio.c"]["sha256"] = ZEROS
    source["command"]["environment"]["MALLORY"] = "1"
    done = rebuild(checkout, published)
    assert done.returncode == 1
    assert f"begins in step {source['name']} (gen_init_cpio.c): what it ran is not the same, either (command)" in error(
        done
    )
    assert "not reproduced: launch-digests.json, vmlinuz" in error(done)


def test_a_manifest_that_tells_other_steps_is_not_reproduced(checkout: Path, published: Document) -> None:
    """Although every artifact is."""
    step_of(published, "vmlinuz")["command"]["argv"] = ["true"]
    done = rebuild(checkout, published)
    assert done.returncode == 1
    assert ".command.argv came out differently" in error(done)
    assert result(done)["reproduced"] is False


# ── what it demands ──


def test_every_pin_that_differs_is_named(checkout: Path, published: Document) -> None:
    """On a line of its own; nothing is fetched, and no lock is rewritten."""
    linux = next(source for source in published["inputs"]["sources"] if source["name"] == "linux")
    linux["sha256"] = ZEROS
    packages = published["inputs"]["tools"]["build"]["packages"]
    gcc = next(package for package in packages if package["name"] == "gcc")
    gcc["version"] = "4:1.0"
    make = next(package for package in packages if package["name"] == "make")
    packages.remove(make)
    locks = {path: path.read_bytes() for path in (checkout / "recipes").glob("*.lock")}
    done = rebuild(checkout, published)
    assert done.returncode == 2
    assert "published.json: does not list what this checkout is built from: " in error(done)
    assert error(done).endswith("check out the commit that it was published with")
    lines = done.stderr.splitlines()
    assert any(line.startswith(f"   source linux: sha256 is {ZEROS}, here ") for line in lines)
    assert any(line.startswith("   package gcc of the build tree: version is 4:1.0, here 4:") for line in lines)
    assert "   package make of the build tree: the manifest does not list it" in lines
    assert len([line for line in lines if line.startswith("   ")]) == 3
    assert locks == {path: path.read_bytes() for path in locks}


def test_another_commit_is_refused(checkout: Path, published: Document) -> None:
    """Other recipes cannot give the same bytes: said at once, with the file's name."""
    fragment = checkout / "recipes/kernel/fragments/base.config"
    text = fragment.read_text()
    fragment.write_text(f"{text}# another\n")
    try:
        done = rebuild(checkout, published)
    finally:
        fragment.write_text(text)
    assert done.returncode == 2
    assert "   file recipes/kernel/fragments/base.config: sha256 is " in done.stderr


def _set(*keys: object, to: object) -> Change:
    def change(document: Any) -> object:
        here = document
        for key in keys[:-1]:
            here = here[key]
        here[keys[-1]] = to
        return document

    return change


def _drop(*keys: object) -> Change:
    def change(document: Any) -> object:
        here = document
        for key in keys[:-1]:
            here = here[key]
        del here[keys[-1]]
        return document

    return change


def _twice(document: Any, *keys: object) -> object:
    here = document
    for key in keys:
        here = here[key]
    here[0] = here[1]
    return document


ENTRY = {"sha256": ZEROS, "size": 1}
INCOMPLETE = {
    "a file less": (_drop("inputs", "files", "recipes/guest.toml"), "file recipes/guest.toml: the manifest does not"),
    "a file more": (_set("inputs", "files", "x", to=ENTRY), "file x: the manifest lists it, this checkout"),
    "a source less": (_set("inputs", "sources", to=[{"name": "x"}]), "source linux: the manifest does not list it"),
    "a source more": (_set("inputs", "sources", 0, "name", to="x"), "source x: the manifest lists it"),
    "a tree less": (_drop("inputs", "tools", "python"), "the python tree: the manifest does not list it"),
    "an output less": (_drop("outputs", "vmlinuz"), "output vmlinuz: the manifest does not list it"),
    "an output more": (_set("outputs", "x", to=ENTRY), "output x: the manifest lists it"),
    "a step less": (_drop("steps", 0), "the manifest does not list it"),
    "another suite": (_set("inputs", "tools", "build", "suite", to="sid"), "the build tree: suite is sid, here trixie"),
    "another engine": (_set("engine", to=99), "the engine: version is 99, here "),
    "another version": (_set("project", "version", to="99"), "the project: version is 99, here "),
    "another place": (_set("inputs", "sources", 0, "path", to="pool/../x"), ": path is pool/../x, here "),
    "another kind": (_set("inputs", "sources", 0, "kind", to="magic"), ": kind is magic, here "),
    "half a byte": (_set("inputs", "sources", 0, "size", to=1.5), ": size is a float, here "),
    "a key more": (_set("inputs", "tools", "build", "packages", 0, "x", to=[[]]), ": x is a list, here missing"),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_what_is_not_exactly_this_checkout_is_refused(checkout: Path, published: Document, name: str) -> None:
    """Status 2, and a line that names it."""
    spoil, line = INCOMPLETE[name]
    done = rebuild(checkout, spoil(published))
    assert done.returncode == 2, done.stderr
    assert "does not list what this checkout is built from" in error(done)
    assert line in done.stderr


BROKEN: dict[str, Change] = {
    "no json": lambda _: "{",
    "no object": lambda _: "[]",
    "deep": lambda _: "[" * 100_000,
    "a key twice": lambda document: json.dumps(document)[:-1] + ', "schema": 2}',
    "a large number": lambda _: '{"schema": ' + "1" * 5000 + "}",
    "large": lambda document: json.dumps(document) + " " * (16 << 20),
    "old schema": _set("schema", to=1),
    "other profile": _set("profile", to="other"),
    "path as profile": _set("profile", to="../production"),
    "no outputs": _set("outputs", to={}),
    "output outside": _set("outputs", "../x", to=ENTRY),
    "no digest": _set("outputs", "vmlinuz", "sha256", to="0" * 63),
    "no size": _drop("outputs", "vmlinuz", "size"),
    "no files": _set("inputs", "files", to={}),
    "files without the key": _drop("inputs", "files"),
    "list of files": _set("inputs", "files", to=[]),
    "file outside": _set("inputs", "files", "/etc/passwd", to=ENTRY),
    "no sources": _set("inputs", "sources", to=[]),
    "nameless source": _set("inputs", "sources", 0, "name", to="\x1b[31m"),
    "no packages": _set("inputs", "tools", "build", "packages", to=[]),
    "package twice": lambda document: _twice(document, "inputs", "tools", "build", "packages"),
    "no steps": _set("steps", to=[]),
    "step without outputs": _drop("steps", 0, "outputs"),
    "unknown key": _set("x", to=1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_one_line(checkout: Path, published: Document, name: str) -> None:
    """Status 2, and the manifest's name in front."""
    done = rebuild(checkout, BROKEN[name](published))
    assert done.returncode == 2, done.stderr
    assert "published.json" in error(done)
    assert "\x1b[31m" not in done.stderr


def test_without_a_manifest(checkout: Path) -> None:
    """What to type."""
    argv = [sys.executable, "-m", "tools.pipeline.front", "rebuild"]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "./doit rebuild --manifest FILE" in done.stderr
