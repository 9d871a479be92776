# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The findings for people: a table, and the same as JSON."""

import json
import textwrap

from tools.pipeline.report.states import MEANS, Finding, Report, State
from tools.sev.errors import printable

SCHEMA = 1
_WIDTH = 110
_FEW = 12  # of each state that people are shown


def as_text(report: Report, *, every: bool) -> str:
    """How much is open, unknown, not compiled and fixed, with some of the former; each with `every`."""
    lines = []
    for state, means in MEANS.items():
        found = report.of(state)
        lines.append(f"{state}: {len(found)}  ({means})")
        shown = found if every else found[:_FEW] if state in {State.OPEN, State.UNKNOWN} else []
        lines += [_line(finding) for finding in shown]
        if shown and len(shown) < len(found):
            lines.append(f"   … and {len(found) - len(shown)} more")
    lines += ["", "data"]
    lines += [f"   {date}  {what}" for what, date in report.data]
    lines += ["not known"]
    for sentence in report.unknown:
        lines += textwrap.wrap(sentence, _WIDTH, initial_indent="   ", subsequent_indent="   ")
    if not every:
        lines += ["", "--all lists all of them"]
    return "\n".join(lines) + "\n"


def _line(finding: Finding) -> str:
    text = f"   {finding.cve:<16}{finding.component:<7}{finding.title}: {finding.why}"
    return printable(text)


def as_json(report: Report) -> str:
    """One document."""
    return (
        json.dumps(
            {
                "schema": SCHEMA,
                "profile": report.profile,
                "versions": dict(report.versions),
                "date": report.date,
                "data": [{"what": what, "date": date} for what, date in report.data],
                "unknown": list(report.unknown),
                "counts": {state.value: len(report.of(state)) for state in MEANS},
                "cves": [
                    {
                        "cve": one.cve,
                        "component": one.component,
                        "state": one.state.value,
                        "title": one.title,
                        "why": one.why,
                        "fixed_in": one.fixed_in,
                    }
                    for one in report.findings
                ],
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )
