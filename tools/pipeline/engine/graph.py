# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The whole graph of steps as text, JSON or Graphviz: keys, what is there and where from, how long each took."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.pipeline.base import ui
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Step

SCHEMA = 1
_KEY = 12  # hex digits of a key that people are shown


@dataclass(frozen=True, kw_only=True)
class Row:
    """A step as it stands. `key` None: not known before what it needs is made; `seconds` None: never made.

    `origin` says in a few words where the result comes from, and is empty when there is none.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    key: str | None
    there: bool
    seconds: float | None
    origin: str = ""


def origin(engine: Engine, step: Step) -> str:
    """Where the step's result comes from: run here, the local cache, a shared one, or an execution service."""
    result = engine.find(step)
    if result is None or not result.origin.ours:
        return "" if result is None else engine.others.said(result)
    return str(result.origin) if engine.has_run(step, result) else "local cache"


def taken(engine: Engine, steps: Sequence[Step]) -> list[str]:
    """The steps whose results are others' work, and whose."""
    results = [(step, engine.find(step)) for step in steps]
    return [f"{step.name} ({found.origin})" for step, found in results if found is not None and not found.origin.ours]


def rows(engine: Engine, steps: Sequence[Step]) -> list[Row]:
    """Look at every step, needed ones first; nothing runs."""
    found = []
    for step in steps:
        result = engine.find(step)
        found.append(
            Row(
                name=step.name,
                title=step.title,
                needs=tuple(needed.name for needed in step.needs),
                key=engine.key(step) if result is None else result.key,
                there=result is not None,
                seconds=None if result is None else result.seconds,
                origin=origin(engine, step),
            )
        )
    return found


def as_text(found: Sequence[Row]) -> str:
    """A table; a step is indented below the deepest of those that it needs."""
    depth: dict[str, int] = {}
    for row in found:
        depth[row.name] = max((depth[name] + 1 for name in row.needs), default=0)
    width = max((2 * depth[row.name] + len(row.name) for row in found), default=4) + 2
    wide = max(len("result"), len("to make"), *(len(row.origin) for row in found)) + 2 if found else 9
    lines = [f"{'step':<{width}}{'key':<{_KEY + 2}}{'result':<{wide}}{'took':<14}needs"]
    for row in found:
        name = "  " * depth[row.name] + row.name
        took = "" if row.seconds is None else ui.duration(row.seconds)
        there = (row.origin or "there") if row.there else "to make"
        key = (row.key or "?")[:_KEY]
        lines.append(f"{name:<{width}}{key:<{_KEY + 2}}{there:<{wide}}{took:<14}{', '.join(row.needs)}".rstrip())
    return "\n".join([*lines, "", _legend(found)]) + "\n"


def _legend(found: Sequence[Row]) -> str:
    missing = sum(not row.there for row in found)
    unknown = any(row.key is None for row in found)
    text = f"{len(found)} steps, {missing} to make"
    return f"{text}; ?: the key is known once what the step needs has been made" if unknown else text


def as_json(found: Sequence[Row]) -> str:
    """One document: schema, and the steps in the order in which they can be made."""
    steps = [
        {
            "name": row.name,
            "title": row.title,
            "needs": list(row.needs),
            "key": row.key,
            "there": row.there,
            "seconds": row.seconds,
            "origin": row.origin or None,
        }
        for row in found
    ]
    return json.dumps({"schema": SCHEMA, "steps": steps}, indent=1) + "\n"


def as_dot(found: Sequence[Row], *, outputs: Mapping[str, Sequence[str]]) -> str:
    """Graphviz text: a box for each step, filled when its result is there; `outputs` is folder → steps behind it."""
    lines = ["digraph steps {", "  rankdir=LR;", "  node [shape=box];"]
    for row in found:
        took = "" if row.seconds is None else f"\\n{ui.duration(row.seconds)}"
        style = ", style=filled, fillcolor=lightgrey" if row.there else ""
        lines.append(f'  "{row.name}" [label="{row.name}{took}"{style}];')
        lines += [f'  "{name}" -> "{row.name}";' for name in row.needs]
    for folder, names in outputs.items():
        lines.append(f'  "{folder}/" [shape=folder];')
        lines += [f'  "{name}" -> "{folder}/";' for name in names]
    return "\n".join([*lines, "}"]) + "\n"
