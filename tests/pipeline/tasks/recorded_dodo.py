# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The real task graph with the expensive actions exchanged for ones that record.

Stands beside the real dodo.py in a copy of the checkout. File dependencies, targets and up-to-date checks
stay as they are; each exchanged action writes its targets from a digest of its file dependencies, as a
compiler would: other inputs, other output. Downloads and tool trees stay real.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dodo

_REAL = {"fetch", "toolchain"}
_LOG = Path(__file__).parent / "executed.log"

DOIT_CONFIG = {**dodo.DOIT_CONFIG, "verbosity": 0}


def _record(name: str, task: dict[str, Any]) -> dict[str, Any]:
    def act() -> None:
        total = hashlib.sha256()
        for path in sorted(str(p) for p in task.get("file_dep", [])):
            total.update(Path(path).read_bytes())
        for target in task.get("targets", []):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).write_text(f"{Path(target).name} {total.hexdigest()}\n")
        with _LOG.open("a") as log:
            log.write(name + "\n")

    return {**task, "actions": [act]} if task.get("actions") else task


def _wrap(base: str, creator: Any) -> Any:
    def creator_of_records() -> Any:
        made = creator()
        if base in _REAL:
            return made
        if isinstance(made, dict):
            return _record(base, made)
        return _each(base, made)

    return creator_of_records


def _each(base: str, made: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in made:
        # A task with a base name of its own is no subtask.
        yield _record(task.get("basename") or f"{base}:{task['name']}", task)


for _name in sorted(name for name in vars(dodo) if name.startswith("task_")):
    globals()[_name] = _wrap(_name.removeprefix("task_"), getattr(dodo, _name))
