# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a report or a measurement, the verdict over them, and how both are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tools.launcher.base.ui import write_json, write_stdout
from tools.sev.errors import printable


class Result(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "FAILED"
    UNCHECKED = "not checked"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line, and one more for each further finding.

    Without a mandatory check there is no verdict "verified"; a failed one always prevents it.
    """

    name: str
    result: Result
    findings: tuple[str, ...]
    mandatory: bool = True

    @property
    def detail(self) -> str:
        """The findings as --json has them."""
        return "; ".join(self.findings)


def passed(
    name: str, holds: bool, detail: str | Sequence[str], *, otherwise: str | Sequence[str], mandatory: bool = True
) -> Check:
    """A check that was made: `detail` when it holds, `otherwise` when not; one finding each, or several."""
    findings = detail if holds else otherwise
    return Check(
        name=name,
        result=Result.OK if holds else Result.FAILED,
        findings=(findings,) if isinstance(findings, str) else tuple(findings),
        mandatory=mandatory,
    )


def failed(name: str, detail: str) -> Check:
    """A check that does not hold whatever it is compared with."""
    return Check(name=name, result=Result.FAILED, findings=(detail,))


def unchecked(name: str, detail: str, *, mandatory: bool = True) -> Check:
    """A check that was not made, and why."""
    return Check(name=name, result=Result.UNCHECKED, findings=(detail,), mandatory=mandatory)


def obstacles(checks: Sequence[Check]) -> list[str]:
    """What stands against "verified": a check that does not hold, a mandatory one that was not made."""
    return [
        f"{check.name} {'does not hold' if check.result is Result.FAILED else 'not checked'}"
        for check in checks
        if check.result is Result.FAILED or (check.result is Result.UNCHECKED and check.mandatory)
    ]


def show(checks: Sequence[Check], facts: dict[str, Any], *, as_json: bool, word: str = "verified") -> int:
    """Print the lines and the verdict; returns the exit status: 0 verified (called `word`), 1 not.

    `facts` are what was read, for --json. Text from report or certificate is escaped.
    """
    reasons = obstacles(checks)
    verdict = "not verified" if reasons else word
    if as_json:
        document = {
            "schema": 1,
            "verdict": verdict,
            "reasons": reasons,
            "checks": [
                {
                    "name": check.name,
                    "result": check.result.lower(),
                    "mandatory": check.mandatory,
                    "detail": check.detail,
                }
                for check in checks
            ],
            **facts,
        }
        write_json(document)
    else:
        width = max(len(check.name) for check in checks)
        lines = []
        for check in checks:
            first, *others = check.findings
            lines.append(f"{check.result:<11}  {check.name:<{width}}  {first}")
            lines += [f"{'':<{13 + width}}  {finding}" for finding in others]
        lines.append(f"{verdict}{': ' if reasons else ''}{'; '.join(reasons)}")
        write_stdout("".join(f"{printable(line)}\n" for line in lines))
    return 1 if reasons else 0
