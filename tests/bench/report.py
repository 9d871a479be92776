# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What benchmarks leave: build/bench/results.json, a table for people, and that in docs/benchmarks.md."""

import json
import os
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.tasks.project import Project

DOCS = "docs/benchmarks.md"
_BEGIN = "<!-- begin: written by ./doit bench_docs -->"
_END = "<!-- end -->"
ORDER = (
    "sizes",
    "digests",
    "launcher_start",
    "publishing",
    "remote",
    "spread",
    "boot",
    "scale",
    "qemu",
    "bounce",
    "engines",
    "overhead",
    "noop",
    "profiles",
    "repro",
)
"""Of the runs and of the table. overhead leaves a kernel that is built, in which noop calls make."""
_HEAD = ("What", "Measured", "Beside", "Goal", "Met")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table, as people read it; `met` None where nothing was demanded."""

    what: str
    measured: str
    beside: str = ""
    goal: str = "none"
    met: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one benchmark found: lines for people, numbers (seconds, bytes) for programs."""

    rows: tuple[Row, ...]
    data: dict[str, Any]


def folder(project: Project) -> Path:
    """Where benchmarks keep results and scratch."""
    return project.build / "bench"


def say(text: str) -> None:
    """A line of progress."""
    ui.line(f"   {text}")


def seconds(value: float) -> str:
    """Three significant digits or so: 0.512 s, 4.21 s, 231.0 s."""
    if value < 1:
        return f"{value:.3f} s"
    return f"{value:.2f} s" if value < 100 else f"{value:.1f} s"


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The numbers that results.json gets for repeated measurements, in the order taken."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "runs": [round(value, 4) for value in values],
    }


def commit(project: Project) -> str:
    """The commit that is checked out, and whether files were changed since."""

    def git(*words: str) -> str:
        argv = ["git", "-C", str(project.root), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    try:
        found = git("rev-parse", "HEAD")
        return f"{found} with changes" if git("status", "--porcelain", "--untracked-files=no") else found
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> dict[str, Any]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        "unknown",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cores": ambient.cpu_count(), "memory_bytes": memory}


def _lines(path: str) -> Iterable[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return ()


def _load(project: Project) -> dict[str, Any]:
    try:
        loaded = json.loads((folder(project) / "results.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def save(project: Project, name: str, part: Part) -> None:
    """Put one benchmark's part into results.json; the others stay if they are of this machine and commit."""
    known, here = _load(project), {"machine": _machine(), "commit": commit(project)}
    parts = known.get("parts", {}) if here.items() <= known.items() else {}
    parts[name] = {"data": part.data, "rows": [asdict(row) for row in part.rows]}
    results = {**here, "parts": parts, "schema": 2}
    text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    files.write_atomically(folder(project) / "results.json", text.encode())


def show(part: Part) -> None:
    """Print the part's table."""
    ui.line("")
    for line in _aligned([asdict(row) for row in part.rows]):
        ui.line(f"   {line}")
    ui.line("")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    met = {True: "yes", False: "MISSED", None: ""}[row["met"]]
    return (row["what"], row["measured"], row["beside"], row["goal"], met)


def _aligned(rows: Sequence[dict[str, Any]]) -> list[str]:
    table = [_HEAD, *[_cells(row) for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]


def write_docs(project: Project) -> None:
    """Put the last results between the markers of docs/benchmarks.md; what they lack is named there."""
    results = _load(project)
    parts = results.get("parts", {})
    if not parts:
        raise BuildError("has no results", where="build/bench/results.json", hint="run ./doit bench")
    machine = results["machine"]
    rows = [row for name in ORDER if name in parts for row in parts[name]["rows"]]
    missing = [f"`{name}`" for name in ORDER if name not in parts]
    lines = [
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB.",
        f"Commit: {results['commit']}.",
        *([f"Not measured for this commit: {', '.join(missing)}."] if missing else []),
        "",
        f"| {' | '.join(_HEAD)} |",
        f"|{'---|' * len(_HEAD)}",
        *[f"| {' | '.join(_cells(row))} |" for row in rows],
    ]
    path = project.root / DOCS
    text = path.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BuildError(f"lacks the markers {_BEGIN} and {_END}", where=DOCS)
    body = "\n".join(lines)
    files.write_if_changed(path, f"{before}{_BEGIN}\n{body}\n{_END}{after}".encode())
    say(f"{DOCS} has the table of the last results")
