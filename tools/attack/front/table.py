# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What `./doit attack` prints: a line as each row is there, the table by topic, the same as JSON."""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

from tools.attack.base.model import Entry, Honest, Row, Topic, Undefended, Verdict
from tools.pipeline.base import ui

SCHEMA = 1
_TITLES = {
    Topic.BOOT: "What boots",
    Topic.ACPI: "Firmware tables",
    Topic.DEVICES: "Devices",
    Topic.STORAGE: "Storage",
    Topic.CHANNEL: "Channel",
    Topic.LIFE: "Life cycle",
}
_COLOURS = {Verdict.HELD: "32", Verdict.BROKEN: "31", Verdict.INCONCLUSIVE: "31", Verdict.UNJUDGED: "33"}
_WIDTH = 118
_INDENT = " " * 15


def progress(row: Row, *, number: int, total: int) -> str:
    """The line about a row that is there."""
    verdict = ui.paint(f"{row.verdict:<12}", _COLOURS[row.verdict])
    return f"   {number:>3}/{total}  {verdict}  {row.entry.name}  {ui.duration(row.seconds)}"


def text(rows: Sequence[Row], out: TextIO) -> str:
    """The table for people."""
    lines: list[str] = []
    for topic in Topic:
        chosen = [row for row in rows if row.entry.topic is topic]
        if not chosen:
            continue
        lines += ["", f"{_TITLES[topic]} ({topic})"]
        for row in chosen:
            verdict = ui.paint(f"{row.verdict:<13}", _COLOURS[row.verdict], out)
            lines.append(f"  {verdict}{row.entry.name}")
            for what, words in (("host", row.entry.attack.host), ("guest", row.guest), ("control", row.control)):
                lines += textwrap.wrap(
                    words, _WIDTH, initial_indent=f"{_INDENT}{what:<9}", subsequent_indent=f"{_INDENT}{'':<9}"
                )
    return "\n".join([*lines, "", summary(rows)]) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """How many of each."""
    counts = Counter(row.verdict for row in rows)
    return f"{len(rows)} attacks: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)


def status(rows: Sequence[Row]) -> int:
    """0: something was judged, and all that was judged held."""
    counts = Counter(row.verdict for row in rows)
    return int(bool(counts[Verdict.BROKEN] or counts[Verdict.INCONCLUSIVE] or not counts[Verdict.HELD]))


def document(rows: Sequence[Row], artifacts: dict[str, str]) -> str:
    """As JSON; `artifacts` are the SHA-256 of what was judged, by part."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "artifacts": artifacts,
        "summary": {str(v): sum(row.verdict is v for row in rows) for v in Verdict},
        "rows": [
            {
                "name": row.entry.name,
                "topic": str(row.entry.topic),
                "host": row.entry.attack.host,
                "guest": row.guest,
                "verdict": str(row.verdict),
                "control": {"kind": _kind(row.entry), "what": row.entry.attack.control.what, "saw": row.control},
                "seconds": round(row.seconds, 1),
            }
            for row in rows
        ],
    }
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def listing(entries: Sequence[Entry]) -> str:
    """What there is; an `s` marks the short form."""
    lines = []
    for entry in entries:
        mark = "s" if entry.attack.short else " "
        lines.append(f"{mark} {entry.name:<46}  {entry.attack.host} [{_kind(entry)}: {entry.attack.control.what}]")
    return "\n".join(lines) + "\n"


def _kind(entry: Entry) -> str:
    control = entry.attack.control
    if isinstance(control, Honest):
        return "honest"
    return "undefended" if isinstance(control, Undefended) else "without"
