# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""How large the artifacts are."""

from pathlib import Path

from tests.bench.report import Part, Row
from tools.pipeline.base.errors import BuildError
from tools.pipeline.guest import agent
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

# A megabyte is 10^6 bytes here, the stricter reading; the firmware's goal is a flash size, 2^19.
_MB = 1_000_000


def measure(project: Project) -> Part:
    """Compare the production artifacts with their budgets."""
    out = project.out(project.recipes.profile(DEFAULT_PROFILE))
    found = {
        "bzImage": (_size(out / "vmlinuz"), 4 * _MB, "≤ 4 MB"),
        "initramfs": (_size(out / "initramfs.cpio.zst"), 2 * _MB, "≤ 2 MB"),
        "agent": (_size(project.build / "results" / project.plan.agent.name / agent.NAME), _MB * 3 // 2, "≤ 1.5 MB"),
    }
    rows = [
        Row(what=name, measured=_text(size), goal=goal, met=size <= limit)
        for name, (size, limit, goal) in found.items()
    ]
    firmware = _size(out / "OVMF.fd")
    goal = "≤ 512 KiB (524,288 bytes)"
    rows.append(Row(what="OVMF.fd", measured=_text(firmware), goal=goal, met=firmware <= 1 << 19))
    data = {name: size for name, (size, _, _) in found.items()} | {"OVMF.fd": firmware}
    return Part(rows=tuple(rows), data=data)


def _text(size: int) -> str:
    return f"{size:,} bytes"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        raise BuildError("is not built", where=str(path), hint="run ./doit build") from None
