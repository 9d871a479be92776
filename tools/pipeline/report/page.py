# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""report.html: one file for people, which needs nothing but itself; the same facts give the same bytes.

facts ── report.html.j2, which escapes every text ── style and script, each allowed by its SHA-256 and nothing else
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ui
from tools.pipeline.engine.graph import Row
from tools.pipeline.report.facts import Facts
from tools.pipeline.report.states import MEANS, State

NAME = "report.html"
MEDIA_TYPE = "text/html"
_HERE = Path(__file__).parent
_WIDTH = 1000.0  # of a picture, in its own units


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a picture: where its bar begins and how long it is, in thousandths of the width."""

    name: str
    text: str
    x: float
    width: float
    kind: str = ""


def render(facts: Facts) -> bytes:
    """The page."""
    import jinja2  # noqa: PLC0415 (start-up: only this needs it)

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["bytes"] = ui.size
    style, script = ((_HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    template = environment.from_string((_HERE / "report.html.j2").read_text(encoding="utf-8"))
    text = template.render(
        facts=facts,
        cves=facts.cves,
        means=MEANS,
        state=State,
        sizes=sizes([(one.name, one.size) for one in facts.artifacts]),
        timeline=timeline(facts.steps),
        origins=origins(facts.steps),
        states=shares([(state.value, len(facts.cves.of(state))) for state in MEANS]),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return text.encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def sizes(rows: Sequence[tuple[str, int]]) -> list[Bar]:
    """Sizes in bytes, the largest first, beside the largest."""
    most = max((size for _, size in rows), default=0) or 1
    ordered = sorted(rows, key=lambda row: (-row[1], row[0]))
    return [Bar(name=name, text=ui.size(size), x=0, width=_part(size, most)) for name, size in ordered]


def timeline(steps: Sequence[Row]) -> list[Bar]:
    """Steps as if each had begun when the last of those that it needs ended. What was never made is left out."""
    ends: dict[str, float] = {}
    begun: list[tuple[float, Row]] = []
    for step in steps:
        begin = max((ends.get(name, 0.0) for name in step.needs), default=0.0)
        ends[step.name] = begin + (step.seconds or 0.0)
        if step.seconds is not None:
            begun.append((begin, step))
    whole = max(ends.values(), default=0.0) or 1.0
    return [
        Bar(name=step.name, text=ui.duration(step.seconds or 0.0), x=_part(begin, whole),
            width=max(2.0, _part(step.seconds or 0.0, whole)))
        for begin, step in begun
    ]  # fmt: skip


def origins(steps: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Where results came from, and the steps of each: what most of them have first."""
    found: dict[str, list[str]] = {}
    for step in steps:
        if step.origin:
            found.setdefault(step.origin, []).append(step.name)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def shares(rows: Sequence[tuple[str, int]]) -> list[Bar]:
    """Counts as parts of one bar."""
    whole = sum(count for _, count in rows) or 1
    found, x = [], 0.0
    for name, count in rows:
        width = _part(count, whole)
        found.append(Bar(name=name, text=str(count), x=x, width=width, kind=_KINDS.get(name, "")))
        x = round(x + width, 2)
    return found


_KINDS: Mapping[str, str] = {"open": "open", "unknown": "unknown", "not compiled": "absent", "fixed": "fixed"}


def _part(value: float, of: float) -> float:
    return round(_WIDTH * value / of, 2)
