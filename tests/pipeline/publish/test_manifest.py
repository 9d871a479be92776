# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""manifest.json lists what went in, truly and completely, and nothing of the machine."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.pipeline.base import files
from tools.pipeline.engine import key
from tools.pipeline.engine.store import merkle
from tools.pipeline.publish import manifest
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.tasks.project import Project

PROFILES = ["production", "debug", "builtin"]


@pytest.fixture(params=PROFILES)
def profile(project: Project, request: pytest.FixtureRequest) -> Profile:
    return project.recipes.profile(request.param)


@pytest.fixture
def folder(project: Project, profile: Profile) -> Path:
    folder = project.out(profile)
    if not (folder / manifest.NAME).is_file():
        pytest.fail(f"{folder.name}/ is not built; run: ./doit artifacts:{profile.name}", pytrace=False)
    return folder


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / manifest.NAME).read_bytes())
    return found


def measured(path: Path) -> dict[str, object]:
    return {"sha256": files.of_file(path), "size": path.stat().st_size}


def test_every_file_and_output_is_there_with_its_digest(
    project: Project, folder: Path, document: dict[str, Any]
) -> None:
    """What is listed is what lies there, and all that lies there is listed."""
    for name, entry in document["inputs"]["files"].items():
        assert entry == measured(project.root / name), name
    assert document["outputs"] == {name: measured(folder / name) for name in document["outputs"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*document["outputs"], "manifest.json", "SHA256SUMS"}


def test_every_input_is_listed(project: Project, profile: Profile, document: dict[str, Any]) -> None:
    """Patches, fragments, recipes, the agent, the launcher, templates and the programs that run; each tool package."""
    expected = [
        *(project.root / "kernel-patches" / profile.kernel.series).glob("*.patch"),
        *(project.root / "recipes/firmware").rglob("*.patch"),
        *(project.root / "tools/launcher").rglob("*.py"),
        *(project.root / "tools/runtime").rglob("*.py"),
        *(project.root / "tools/sev").rglob("*.py"),
        *(project.root / "initramfs/agent/src").rglob("*.rs"),
    ]
    inputs = document["inputs"]
    assert {path.relative_to(project.root).as_posix() for path in expected} <= inputs["files"].keys()
    assert {
        *(fragment for kernel in profile.kernels for fragment in kernel.fragments),
        profile.file,
        *(file for kernel in profile.kernels for file in kernel.files),
        profile.firmware.file,
        "initramfs/manifest.toml",
        "recipes/guest.toml",
        "recipes/runtime.toml.j2",
        "recipes/sev-runtime.toml.example",
        "recipes/firmware/judged.sh",
        "tools/pipeline/publish/render.py",
        "tools/pipeline/publish/pack_launcher.py",
        "recipes/qemu/devices.txt",
    } <= inputs["files"].keys()
    pins = {source.pin.name: source.pin for source in project.sources}
    assert {source["name"] for source in inputs["sources"]} == {
        *(profile.kernel.source, profile.firmware.source, profile.firmware.debian_source),
        *("sev-snp-measure", "erofs-utils", "qemu"),
    }
    assert all(source["sha256"] == pins[source["name"]].sha256 for source in inputs["sources"])
    assert inputs["tools"].keys() == {"build", "python", "qemu"}
    assert {name: tools["suite"] for name, tools in inputs["tools"].items()} == {
        "build": "trixie",
        "python": "trixie, bookworm",
        "qemu": "trixie",
    }
    for name, tools in inputs["tools"].items():
        packages = project.toolchain_lock.of_tree(name)
        assert {p["name"]: p["sha256"] for p in tools["packages"]} == {p.pin.name: p.pin.sha256 for p in packages}
        assert tools["digest"] == project.trees.ensure(name).digest


def test_the_chain_is_closed(document: dict[str, Any]) -> None:
    """Every input of a step is a pin, a listed file, a literal of the recipes, or another step's output.

    And every artifact is an output of a step.
    """
    listed = document["inputs"]["files"]
    steps = {step["name"]: step for step in document["steps"]}
    pins = {f"recipes/sources.lock: {source['name']}": source for source in document["inputs"]["sources"]}
    used = set()
    for step in steps.values():
        for inside, entry in step["inputs"].items():
            origin = entry["from"]
            name, _, output = origin.removeprefix("step ").partition(": ")
            if origin.startswith("step "):
                assert entry["sha256"] == steps[name]["outputs"][output]["sha256"], (step["name"], inside)
                used.add((name, output))
            elif origin in pins:
                assert entry["sha256"] == pins[origin]["sha256"]
            elif origin != "the recipes":
                assert {"sha256": entry["sha256"], "size": entry["size"]} == listed[origin], (step["name"], inside)
    made = [entry for step in steps.values() for entry in step["outputs"].values()]
    assert all(entry in made for entry in document["outputs"].values())
    shipped = {entry["sha256"] for entry in document["outputs"].values()}
    idle = {
        step["name"]
        for step in steps.values()
        if not any(
            (step["name"], name) in used or entry["sha256"] in shipped for name, entry in step["outputs"].items()
        )
    }
    assert idle == set(), "steps that nothing came of"


def test_every_key_can_be_computed_from_it(document: dict[str, Any]) -> None:
    """By whoever has nothing but the manifest."""
    for step in document["steps"]:
        nodes = {
            path.removeprefix("/"): merkle.File(
                digest=merkle.Digest(sha256=entry["sha256"], size=entry["size"]), executable=entry["executable"]
            )
            for path, entry in step["inputs"].items()
        }
        members = merkle.of_files(nodes).members
        mounts = {f"/{name.decode()}": node.digest().sha256 for name, node in members.items()
                  if isinstance(node, merkle.Folder)}  # fmt: skip
        assert step["mounts"] == {"/": document["inputs"]["tools"][step["tools"]]["digest"], **mounts}
        described = {name: step[name] for name in ("engine", "command", "mounts", "parallel")}
        described["outputs"] = sorted(step["outputs"])
        text = json.dumps(described, sort_keys=True, separators=(",", ":"))
        assert step["key"] == hashlib.sha256(text.encode()).hexdigest(), step["name"]
        assert step["engine"] == document["engine"] == key.ENGINE_VERSION
        assert step["command"]["environment"]["SOURCE_DATE_EPOCH"] == "1735689600"


def test_it_is_reproducible_itself(project: Project, folder: Path, document: dict[str, Any]) -> None:
    """Sorted, and without host, user, date or path of this machine."""
    path = folder / manifest.NAME
    text = path.read_text()
    assert text == json.dumps(document, indent=1, sort_keys=True) + "\n"
    assert str(project.root) not in text
    assert str(project.cas.root) not in text
    assert not re.search(rf"(?<![\w.-]){re.escape(str(Path.home()))}/", text)  # nor agent/src/root/, where HOME=/root
    assert not re.search(r"\b20(2[6-9]|3\d)-\d\d-\d\d", text)
    assert f"{files.of_file(path)}  manifest.json\n" in (folder / "SHA256SUMS").read_text()
