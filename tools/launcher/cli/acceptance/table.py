# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The table that is sent back: a row a check, a column a kind of guest; below it what was seen, and what was not."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from tools.launcher.acceptance.catalogue import CHECKS
from tools.launcher.acceptance.model import Evidence, Guest, Line, Result
from tools.launcher.acceptance.starts import Bench
from tools.launcher.base.ui import NAME
from tools.launcher.host.qemu_program import version_text
from tools.sev.errors import printable

_WIDTH = 118
_COLUMN = 13
_SEND = (
    "What to send back: the JSON file, as an issue; lines that were not run are as welcome. A line that failed on a "
    "protected guest may be a hole: that goes where SECURITY.md says. See docs/acceptance.md."
)


def text(bench: Bench, evidence: Mapping[Guest, Evidence], lines: Sequence[Line]) -> str:
    """All of it."""
    return "".join(f"{line}".rstrip() + "\n" for line in _lines(bench, evidence, lines))


def _lines(bench: Bench, evidence: Mapping[Guest, Evidence], lines: Sequence[Line]) -> Iterator[str]:
    config = bench.config
    yield (
        f"{NAME} acceptance: {config.profile} {config.version}, kernel {config.kernel.sha256[:12]}, "
        f"firmware {config.firmware.sha256[:12]}, QEMU {version_text(bench.qemu.version)}, {bench.accel}"
    )
    yield ""
    width = max(len(check.name) for check in CHECKS) + 2
    yield f"{'check':<{width}}" + "".join(f"{guest:<{_COLUMN}}" for guest in Guest)
    results = {(line.check.name, line.guest): str(line.verdict.result) for line in lines}
    for check in CHECKS:
        row = "".join(f"{results.get((check.name, guest), '-'):<{_COLUMN}}" for guest in Guest)
        yield f"{check.name:<{width}}{row}"
    for result, heading in ((Result.FAILED, "failed"), (Result.HELD, "held")):
        chosen = [line for line in lines if line.verdict.result is result]
        if chosen:
            yield from ("", heading)
        for line in chosen:
            control = f" (control: {line.verdict.control})" if line.verdict.control else ""
            yield from _folded(f"{line.check.name}, {line.guest}: {line.verdict.seen}{control}")
    yield from _not_run(lines)
    yield from _anew(evidence)
    yield from _times(evidence)
    yield ""
    counts = [f"{sum(line.verdict.result is result for line in lines)} {result}" for result in Result]
    yield ", ".join(counts)
    yield ""
    yield from textwrap.wrap(_SEND, _WIDTH, break_on_hyphens=False)


def _not_run(lines: Sequence[Line]) -> Iterator[str]:
    """One line for each reason: a host without SEV has one for three dozen lines."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.verdict.result is Result.NOT_RUN:
            reasons.setdefault((str(line.guest), line.verdict.seen), []).append(line.check.name)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (guest, why), names in reasons.items():
        together.setdefault((why, tuple(names)), []).append(guest)
    if together:
        yield from ("", "not run")
    for (why, checks), guests in together.items():
        yield from _folded(f"{', '.join(guests)}: {why}: {', '.join(checks)}")


def _anew(evidence: Mapping[Guest, Evidence]) -> Iterator[str]:
    lines = [f"{guest}, {start.anew}" for guest, own in evidence.items() for start in own.starts.values() if start.anew]
    if lines:
        yield from ("", "begun anew, once: emulated, and QEMU ended before the agent spoke")
    for line in lines:
        yield from _folded(line)


def _times(evidence: Mapping[Guest, Evidence]) -> Iterator[str]:
    rows = [(guest, found.talk.seconds) for guest, found in evidence.items() if found.talk and found.talk.seconds]
    if rows:
        yield from ("", "seconds")
    for guest, seconds in rows:
        yield f"  {guest}: " + ", ".join(f"{phase} {value:.2f}" for phase, value in seconds.items())
    for guest, found in evidence.items():
        if found.pages is not None:
            sizes = ", ".join(f"{count} pages {value:.3f}" for count, value in found.pages.seconds.items())
            yield f"  {guest}: {found.pages.of_one * 1e6:.1f} µs for a page of firmware ({sizes})"


def _folded(line: str) -> list[str]:
    return textwrap.wrap(
        printable(line), _WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )  # fmt: skip
