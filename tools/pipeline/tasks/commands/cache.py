# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit cache`: what lies in the cache and how old it is. `./doit gc`: what nobody needs is removed."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store import inventory
from tools.pipeline.engine.store.inventory import DAY, Item, Kind
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project
from tools.pipeline.toolchain import tool_tree

_FOLDERS = ("partial", "results", "sha256", "trees")
_RECENT = 3600.0  # seconds; a build of another checkout may be using it
_KEEP = 30  # days; other checkouts' locks are not known: what they need has been used lately
_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def cache(project: Project) -> Task:
    """The task that shows."""
    return {
        "doc": "show what lies in the cache, by kind and age (./doit gc removes)",
        "actions": [action(partial(_cache, project))],
        "meta": {"answers": True},
        "verbosity": 2,
        "io": {"capture": False},
    }


def gc(project: Project) -> Task:
    """The task that removes."""
    return {
        "doc": "remove from the cache what this checkout does not need and nobody used lately",
        "actions": [action(partial(_gc, project))],
        "params": [
            option("keep", f"what was used within this time stays, such as 12h or 30d; {_KEEP}d when left out"),
            option("max", "the cache is at most this large afterwards, such as 500M or 20G: beyond that also goes what "
                          "was used lately, the oldest first, and never what this checkout needs"),
            switch("dry_run", "say what would be removed, and remove nothing", long="dry-run"),
        ],
        "meta": {"answers": True},
        "verbosity": 2,
        "io": {"capture": False},
    }  # fmt: skip


def _cache(project: Project) -> None:
    now = ambient.now()
    with ui.working("looking through the cache"):
        found = items(project)
        besides = {
            f"{folder}/, which this version does not use and leaves alone": inventory.disk_usage(folder)
            for folder in sorted(project.cas.root.glob("*/"))
            if folder.name not in _FOLDERS
        }
        besides["build/ of this checkout, which may be deleted"] = inventory.disk_usage(project.build)
    idle = inventory.choose(found, before=now - _KEEP * DAY)
    ui.result(
        "\n".join([str(project.cas.root), "", *table(found, now=now), "", *_legend(idle, besides)]) + "\n",
        sys.stdout,
    )


def _gc(project: Project, *, keep: str, max: str, dry_run: bool) -> None:  # noqa: A002  (the option's name)
    age, most = _age(keep), _size(max)
    with ui.working("looking through the cache"):
        found = items(project)
    now = ambient.now()
    held = [item if item.used < now - _RECENT else replace(item, needed=True) for item in found]
    chosen = inventory.choose(held, before=now - age, most=most)
    freed, left = _sum(chosen), _sum(found) - _sum(chosen)
    if not dry_run:
        with ui.working("removing what is not needed"):
            for item in chosen:
                item.remove()
            project.cas.sweep()
    did = "would remove" if dry_run else "removed"
    ui.line(f"   {did} {ui.size(freed)} in {len(chosen)} files and trees; {ui.size(left)} are left")
    if most is not None and left > most:
        ui.line(
            "   note: this checkout or a build needs what is left, or it was used within the last hour (./doit cache)"
        )


def items(project: Project) -> list[Item]:
    """All that can be removed by itself."""
    pins = {source.pin.sha256 for source in project.sources}
    for tree in project.toolchain.trees:
        pins.update(package.pin.sha256 for package in project.toolchain_lock.of_tree(tree.name))
    engine = project.engine
    return [*inventory.items(engine.cas, engine.results, pins=pins, keys=set(_keys(project))), *_trees(project)]


def _keys(project: Project) -> Iterable[str]:
    """Of the steps as they are now, and of those that this checkout has last taken."""
    for step in project.plan.steps:
        found = project.engine.find(step)
        if found is not None:
            yield found.key
    for path in sorted((project.build / "results").glob("*.json")):
        try:
            yield str(json.loads(path.read_bytes())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half written by a build that was killed: it names nothing


def _trees(project: Project) -> Iterable[Item]:
    current = project.trees.current()
    for folder, used in project.trees.folders():
        yield Item(
            kind=Kind.TREE,
            size=inventory.disk_usage(folder),
            used=used,
            needed=folder in current or tool_tree.in_use(folder),
            remove=partial(tool_tree.remove_unused, folder),
        )


def table(found: Sequence[Item], *, now: float) -> list[str]:
    """A line for each kind, and the sum."""
    row = "{:<18}{:>7}{:>12}   {:>10}{:>10}{:>10}{:>10}{:>14}".format
    lines = [row("", "number", "size", "last day", "7 days", "30 days", "before", "not needed")]
    groups = [(str(kind), [item for item in found if item.kind is kind]) for kind in Kind]
    for title, group in [*groups, ("all", list(found))]:
        ages = (ui.size(size) if size else "-" for size in inventory.ages(group, now=now))
        idle = _sum(item for item in group if not item.needed)
        lines.append(row(title, len(group), ui.size(_sum(group)), *ages, ui.size(idle) if idle else "-"))
    return lines


def _legend(idle: Sequence[Item], besides: Mapping[str, int]) -> list[str]:
    return [
        "last day … before: when it was last used. not needed: no lock and no result of this checkout names it;",
        "other checkouts may. Everything can be downloaded and built again.",
        f"./doit gc removes what is not needed and was not used for {_KEEP} days: {ui.size(_sum(idle))} now.",
        *(f"Besides: {ui.size(size)} in {place}" for place, size in besides.items()),
    ]


def _sum(found: Iterable[Item]) -> int:
    return sum(item.size for item in found)


def _age(text: str) -> float:
    """In seconds."""
    match = re.fullmatch(r"([0-9]{1,5})([hd])", text or f"{_KEEP}d")
    if match is None:
        raise UserError(
            f"{text!r} is not a time in hours or days", where="./doit gc --keep", hint="--keep 12h, --keep 30d"
        )
    return int(match[1]) * (DAY if match[2] == "d" else DAY / 24)


def _size(text: str) -> int | None:
    """In bytes."""
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([MGT])", text)
    if match is None:
        raise UserError(
            f"{text!r} is not a size in MiB, GiB or TiB", where="./doit gc --max", hint="--max 500M, --max 20G"
        )
    return int(match[1]) * _UNITS[match[2]]
