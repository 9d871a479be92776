# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Downloads and tool trees.

sources.lock ──── fetch:sources ─────────────────────────────── (source:*)
toolchain.lock ── fetch:TREE ── toolchain:TREE ── build/stamps/tree-TREE
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from doit.tools import config_changed

from tools.pipeline.base import files, ui
from tools.pipeline.engine import sandbox
from tools.pipeline.sources.pins import Pin
from tools.pipeline.tasks.doit_glue import Task, action, remove
from tools.pipeline.tasks.project import Project


def fetch(project: Project) -> Iterator[Task]:
    """fetch:sources and fetch:TREE for each tool tree."""
    yield _fetch(project, "sources", [s.pin for s in project.sources], doc="pinned sources")
    for wanted in project.toolchain.trees:
        pins = [p.pin for p in project.toolchain_lock.of_tree(wanted.name)]
        yield _fetch(project, wanted.name, pins, doc=f"packages of the {wanted.name} tree")


def _fetch(project: Project, name: str, pins: list[Pin], *, doc: str) -> Task:
    def work() -> None:
        project.check_locks()
        project.fetch(pins, title=f"fetching {doc}")

    return {
        "name": name,
        "doc": f"bring the {doc} into the cache, verified",
        "actions": [action(work)],
        "uptodate": [
            config_changed({pin.name: pin.sha256 for pin in pins}),
            lambda: all(project.cache.has(pin.sha256, pin.size) for pin in pins),
        ],
        "io": {"capture": False},
    }


def stamp(project: Project, tree: str) -> Path:
    """The file that holds a tree's digest: what tasks depend on in the tree's place."""
    return project.build / "stamps" / f"tree-{tree}"


def toolchain(project: Project) -> Iterator[Task]:
    """toolchain:TREE for each tool tree."""
    for wanted in project.toolchain.trees:
        yield {
            "name": wanted.name,
            "doc": f"set up the {wanted.name} tree from toolchain.lock",
            "actions": [action(partial(_set_up, project, wanted.name))],
            "task_dep": [f"fetch:{wanted.name}"],
            "targets": [stamp(project, wanted.name)],
            "uptodate": [partial(_is_set_up, project, wanted.name)],
            "clean": remove(stamp(project, wanted.name)),
            "io": {"capture": False},
        }


def _set_up(project: Project, name: str) -> None:
    # Told before minutes of downloads and builds are spent, with the remedy.
    sandbox.available()
    tree = project.tree(name)
    files.write_if_changed(stamp(project, name), f"{tree.digest}\n".encode())
    ui.line(f"   {name} tree {tree.digest[:16]}… in {tree.path}")


def _is_set_up(project: Project, name: str) -> bool:
    tree = project.find_tree(name)
    path = stamp(project, name)
    return tree is not None and path.is_file() and path.read_text() == f"{tree.digest}\n"
