# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit cache`: what lies in the cache and how old it is; with --prune, what nobody needs is removed."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store import inventory
from tools.pipeline.engine.store.inventory import DAY, Item, Kind
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project
from tools.pipeline.toolchain import tool_tree

_WHERE = "./doit cache"
_FOLDERS = ("partial", "results", "sha256", "trees")
_DAYS = 30  # other checkouts' locks are not known: what they need has been used lately
_UNITS = {"M": 1 << 20, "G": 1 << 30}


def cache(project: Project) -> Task:
    """The task."""
    return {
        "doc": "show what lies in the cache, by kind and age; --prune removes what is old and not needed",
        "actions": [action(partial(_cache, project))],
        "params": [
            switch("prune", "remove what no lock and no result of this checkout names, and nobody used lately"),
            option("days", f"with --prune: how long unused, {_DAYS} when left out; 0 takes all that is not needed"),
            option("size", "with --prune: no more than brings the cache down to this size, such as 500M or 3G"),
        ],
        "meta": {"answers": True},
        "verbosity": 2,
        "io": {"capture": False},
    }


def _cache(project: Project, *, prune: bool, days: str, size: str) -> None:
    limit, most = _days(days), _size(size)
    if not prune and (days or size):
        raise UserError("--days and --size belong to --prune", where=_WHERE, hint="add --prune")
    now = ambient.now()
    with ui.working("looking through the cache"):
        found = items(project)
        besides = {
            f"{folder}/, which this version does not use and leaves alone": inventory.disk_usage(folder)
            for folder in sorted(project.cas.root.glob("*/"))
            if folder.name not in _FOLDERS
        }
        besides["build/ of this checkout, which may be deleted"] = inventory.disk_usage(project.build)
    if not prune:
        idle = inventory.choose(found, before=now - limit * DAY)
        ui.result(
            "\n".join([str(project.cas.root), "", *table(found, now=now), "", *_legend(idle, besides)]) + "\n",
            sys.stdout,
        )
        return
    chosen = inventory.choose(found, before=now - limit * DAY, most=most)
    with ui.working("removing what is not needed"):
        for item in chosen:
            item.remove()
        project.cas.sweep()
    freed, left = _sum(chosen), _sum(found) - _sum(chosen)
    ui.line(f"   removed {ui.size(freed)} in {len(chosen)} files and trees; {ui.size(left)} are left")
    if most is not None and left > most:
        ui.line("   note: the rest is needed by this checkout, or was used lately (--days)")


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
            needed=folder in current,
            remove=partial(tool_tree.remove, folder),
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
        f"--prune removes what is not needed and was not used for {_DAYS} days: {ui.size(_sum(idle))} now.",
        *(f"Besides: {ui.size(size)} in {place}" for place, size in besides.items()),
    ]


def _sum(found: Iterable[Item]) -> int:
    return sum(item.size for item in found)


def _days(text: str) -> int:
    if not text:
        return _DAYS
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise UserError(f"{text!r} is not a whole number of days", where=f"{_WHERE} --days", hint="--days 30")
    return int(text)


def _size(text: str) -> int | None:
    """In bytes."""
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([MG])", text)
    if match is None:
        raise UserError(
            f"{text!r} is not a size in MiB or GiB", where=f"{_WHERE} --size", hint="--size 500M, --size 3G"
        )
    return int(match[1]) * _UNITS[match[2]]
