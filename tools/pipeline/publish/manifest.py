# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""manifest.json: what went into an output folder, by which commands, and what came out.

    locks, tool tree, files of the checkout ─┐
    notes of the steps (store.py) ───────────┼── manifest.json
    artifacts ───────────────────────────────┘

It holds no date, host or path, so it is reproducible itself; docs/reproducibility.md describes its keys. The
pins in it are whole, so that somebody else can rebuild from the manifest alone (rebuild.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.pipeline.base import files as digest
from tools.pipeline.base.errors import BuildError
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.sources import pins
from tools.pipeline.sources.pins import Source
from tools.pipeline.tasks.project import Project

NAME = "manifest.json"
SCHEMA = 1
TREE = "build"
"""The one tool tree that build steps run on."""


def measured(path: Path) -> dict[str, object]:
    """Size in bytes and SHA-256 of a file."""
    return {"sha256": digest.of_file(path), "size": path.stat().st_size}


def files_of(root: Path, files: Iterable[Path]) -> dict[str, object]:
    """Files of a checkout, by their paths in it."""
    return {path.relative_to(root).as_posix(): measured(path) for path in sorted(files)}


def write(
    project: Project,
    profile: Profile,
    *,
    sources: Sequence[Source],
    files: Iterable[Path],
    notes: Iterable[Path],
    outputs: Mapping[str, Path],
    target: Path,
) -> None:
    """Write the manifest to `target`. `notes` are the steps' (Store.note), `outputs` name → file."""
    packages = project.toolchain_lock.of_tree(TREE)
    document = {
        "schema": SCHEMA,
        "project": {"name": "sev-artifacts", "version": project.version()},
        "profile": profile.name,
        "inputs": {
            "sources": [pins.source_fields(s) for s in sorted(sources, key=lambda s: s.pin.name)],
            "tools": {
                "suite": project.toolchain_lock.suite,
                "tree": TREE,
                "digest": project.tree(TREE).digest,
                "packages": [pins.package_fields(p, trees=[TREE]) for p in packages],
            },
            "files": files_of(project.root, files),
        },
        "steps": sorted((_step(note) for note in notes), key=lambda step: str(step["name"])),
        "outputs": {name: measured(path) for name, path in sorted(outputs.items())},
    }
    digest.write_if_changed(target, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def _step(note: Path) -> dict[str, Any]:
    """A step as an independent rebuilder wants it: how it was called and on what; not our code's digest."""
    try:
        noted = json.loads(note.read_bytes())
        return {
            "name": noted["log"],
            "argv": noted["argv"],
            "environment": noted["environment"],
            "inputs": dict(noted["inputs"]),
            "outputs": noted["outputs"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise BuildError("is not there or damaged", where=str(note), hint="remove build/ and build again") from None
