# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""manifest.json lists what went in, truly and completely, and nothing of the machine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.pipeline.base import files as digest
from tools.pipeline.guest import kernel
from tools.pipeline.publish import manifest
from tools.pipeline.tasks.project import Project

PROFILES = ["production", "debug", "builtin"]


def load(project: Project, profile: str) -> dict[str, Any]:
    """The manifest in an output folder."""
    folder = project.out(project.recipes.profile(profile))
    document = json.loads((folder / manifest.NAME).read_bytes())
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("profile", PROFILES)
def test_every_file_and_output_is_there_with_its_digest(project: Project, profile: str) -> None:
    """What is listed is what lies there."""
    document = load(project, profile)
    for name, entry in document["inputs"]["files"].items():
        assert entry == manifest.measured(project.root / name), name
    folder = project.out(project.recipes.profile(profile))
    listed = {name: manifest.measured(folder / name) for name in document["outputs"]}
    assert listed == document["outputs"]
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == {*document["outputs"], "manifest.json", "SHA256SUMS"}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_input_is_listed(project: Project, profile: str) -> None:
    """Sources, patches, fragments, recipes, the agent, the launcher, each tool package."""
    inputs = load(project, profile)["inputs"]
    chosen = project.recipes.profile(profile)
    files = set(inputs["files"])
    expected = [
        *kernel.fragments(project, chosen),
        *(project.root / "kernel-patches/6.12").glob("*.patch"),
        *(project.root / "recipes/firmware").rglob("*.patch"),
        *(project.root / "tools/launcher").rglob("*.py"),
        *(project.root / "initramfs/agent/src").rglob("*.rs"),
        *[project.root / name for name in ("initramfs/manifest.toml", "recipes/guest.toml")],
        *[project.root / name for name in ("recipes/runtime.toml.j2", f"recipes/profiles/{profile}.toml")],
    ]
    assert {path.relative_to(project.root).as_posix() for path in expected} <= files
    assert {s["name"]: s["sha256"] for s in inputs["sources"]} == {s.pin.name: s.pin.sha256 for s in project.sources}
    packages = project.toolchain_lock.of_tree("build")
    assert {p["name"]: p["sha256"] for p in inputs["tools"]["packages"]} == {p.pin.name: p.pin.sha256 for p in packages}
    assert inputs["tools"]["digest"] == project.trees.ensure("build").digest


@pytest.mark.parametrize("profile", PROFILES)
def test_steps_lead_to_the_outputs(project: Project, profile: str) -> None:
    """The chain is closed: each input of a step is a source, a file, or another step's output."""
    document = load(project, profile)
    steps = {step["name"]: step for step in document["steps"]}
    made = {value for step in steps.values() for value in step["outputs"].values()}
    final = {document["outputs"][name]["sha256"] for name in ("vmlinuz", "OVMF.fd")}
    assert final <= made
    sources = {source["sha256"] for source in document["inputs"]["sources"]}
    files = {entry["sha256"] for entry in document["inputs"]["files"].values()}
    open_ends = {
        (name, inside)
        for name, step in steps.items()
        for inside, value in step["inputs"].items()
        if value not in sources | files | made
    }
    # Made on the way by our code from listed files: the agent's staged folder, the merged configuration
    # request, the uncompressed archive.
    assert {inside for _, inside in open_ends} <= {"/src", "/inputs/allconfig", "/inputs/initramfs.cpio"}
    assert {name for name, inside in open_ends if inside == "/src"} == {"agent"}
    for step in steps.values():
        assert step["argv"]
        assert step["environment"]["SOURCE_DATE_EPOCH"] == "1735689600"


@pytest.mark.parametrize("profile", PROFILES)
def test_it_is_reproducible_itself(project: Project, profile: str) -> None:
    """Sorted, and without host, user, date or path of this machine."""
    path = project.out(project.recipes.profile(profile)) / manifest.NAME
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert str(project.root) not in text
    assert f"{Path.home()}/" not in text
    assert not re.search(r"\b20(2[6-9]|3\d)-\d\d-\d\d", text)
    sums = (path.parent / "SHA256SUMS").read_text()
    assert f"{digest.of_file(path)}  manifest.json\n" in sums
