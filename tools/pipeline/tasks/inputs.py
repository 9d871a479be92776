# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Downloads and tool trees.

_locks ── sources.lock ──── fetch:sources ────────── (steps that take a source; fetch:linux-6.18 for one of a series)
       └─ toolchain.lock ── fetch:TREE ── toolchain:TREE ── (steps that run on it)
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from doit.tools import config_changed

from tools.pipeline.base import ui
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sources.pins import Pin
from tools.pipeline.tasks.doit_glue import Task, action, option, remove, switch
from tools.pipeline.tasks.project import Project

LOCKS = "_locks"


def locks(project: Project) -> Task:
    """At the start of every build: locks that answer another request build what nobody asked for."""
    return {
        "basename": LOCKS,
        "doc": "compare the locks with what sources.toml and toolchain.toml ask for",
        "actions": [action(project.check_locks)],
    }


_FROM = [
    option(
        "source",
        "what a build needs, from a published artifact alone: HOST/NAME:TAG, a folder, or https://…",
        long="from",
    ),
    option("ca", "PEM file of the authorities to believe"),
    switch("plain_http", "speak HTTP without TLS to a registry; what comes is compared with the pins all the same"),
]


def fetch(project: Project) -> Iterator[Task]:
    """Fetch for everything; fetch:sources, fetch:SOURCE for those of other series, fetch:TREE for each tool tree."""
    yield {
        "basename": "fetch",
        "doc": "bring what the locks pin into the cache; --from: from a published artifact (docs/publishing.md)",
        "actions": [action(partial(_fetch_all, project))],
        "params": _FROM,
        "task_dep": [LOCKS],
        "io": {"capture": False},
    }
    # A build of the default series needs no other.
    beside = {one.source for one in project.recipes.series}
    yield _fetch(project, "sources", [s.pin for s in project.sources if s.pin.name not in beside], doc="pinned sources")
    for source in project.sources:
        if source.pin.name in beside:
            yield _fetch(project, source.pin.name, [source.pin], doc=f"source {source.pin.name}")
    for tree in project.toolchain.trees:
        pins = [p.pin for p in project.toolchain_lock.of_tree(tree.name)]
        yield _fetch(project, tree.name, pins, doc=f"packages of the {tree.name} tree")


def _fetch(project: Project, name: str, pins: list[Pin], *, doc: str) -> Task:
    return {
        "basename": f"fetch:{name}",
        "doc": f"bring the {doc} into the cache, verified",
        "actions": [action(partial(project.fetch, pins, title=f"fetching {doc}"))],
        "task_dep": [LOCKS],
        "uptodate": [
            config_changed({pin.name: pin.sha256 for pin in pins}),
            lambda: all(project.cas.has(pin.sha256, pin.size) for pin in pins),
        ],
    }


def _fetch_all(project: Project, *, source: str, **options: Any) -> None:
    packages = project.toolchain_lock.packages
    if not source:
        pins = [*(s.pin for s in project.sources), *(package.pin for package in packages)]
        project.fetch(pins, title="fetching what the locks pin")
        return
    from tools.pipeline.publish import bundle  # noqa: PLC0415 (start-up: it imports requests)

    # A published artifact has what a build needs; trees for tests and benchmarks are not in it.
    trees = {step.tools for step in project.plan.steps}
    pins = [*(s.pin for s in project.sources), *(package.pin for package in packages if trees & {*package.trees})]
    bundle.bring(pins, bundle.Wish(source=source, **options), cas=project.cas, root=project.root)


def toolchain(project: Project) -> Iterator[Task]:
    """toolchain:TREE for each tool tree."""
    for tree in project.toolchain.trees:
        yield {
            "name": tree.name,
            "doc": f"set up the {tree.name} tree from toolchain.lock",
            "actions": [action(partial(_set_up, project, tree.name))],
            "task_dep": [f"fetch:{tree.name}"],
            "uptodate": [partial(_is_set_up, project, tree.name)],
            "clean": remove(_link(project, tree.name)),
        }


def _link(project: Project, name: str) -> Path:
    """For people and tests, who want to look into a tree."""
    return project.build / "trees" / name


def _is_set_up(project: Project, name: str) -> bool:
    tools, link = project.trees.find(name), _link(project, name)
    return tools is not None and link.is_symlink() and link.readlink() == tools.path


def _set_up(project: Project, name: str) -> None:
    # Told before the first step, with the remedy.
    sandbox.available()
    tools = project.trees.ensure(name)
    link = _link(project, name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tools.path)
    ui.line(f"   {name} tree {tools.digest[:16]}… in {tools.path}")
