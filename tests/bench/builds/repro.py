# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the reproducibility check costs beside one plain build from nothing, which is its first half."""

import json
import subprocess
import sys
from typing import Any

from tests.bench.report import Part, Row
from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.repro import check
from tools.pipeline.tasks.project import Project


def measure(project: Project) -> Part:
    """Run `./doit repro` and take its times (half an hour)."""
    done = subprocess.run([sys.executable, "-m", "tools.pipeline.front", "repro"], cwd=project.root, check=False)
    path = project.build / "repro" / DEFAULT_PROFILE / check.RESULT
    if done.returncode != 0 or not path.is_file():
        raise BuildError(f"ended with status {done.returncode}", where="./doit repro")
    result: dict[str, Any] = json.loads(path.read_bytes())
    plain, varied = result["seconds"]["plain"], result["seconds"]["varied"]
    rows = []
    for kind, what in (("wall", "time"), ("cpu", "CPU time")):
        total = plain[kind] + varied[kind]
        rows.append(
            Row(
                what=f"`./doit repro`, {what}; beside it one plain build from nothing",
                measured=ui.duration(total),
                beside=f"{ui.duration(plain[kind])} (factor {total / plain[kind]:.1f})",
            )
        )
    return Part(rows=tuple(rows), data={"plain": plain, "varied": varied, "files": len(result["files"])})
