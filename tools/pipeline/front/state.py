# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What doit remembers of finished tasks: one JSON file, replaced as a whole, and made again when it is damaged.

Losing it costs a look at every task's inputs; the results of steps are kept elsewhere.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError

_Tasks = dict[str, dict[str, Any]]


class State:
    """A doit backend (the methods are those of doit.dependency.JsonDB).

    Two runs at once in one checkout each write what they did themselves: nothing is locked while tasks run.
    """

    def __init__(self, name: str, codec: object, *, module_name: str | None = None) -> None:  # noqa: ARG002 (doit's interface)
        self.name = name
        self._tasks = self._load()
        self._changed: set[str] = set()

    def get(self, task_id: str, dependency: str) -> Any:
        """A remembered value, None when there is none."""
        return self._tasks.get(task_id, {}).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Remember a value."""
        # As it will be read again: a tuple comes back as a list, and is no change.
        value = json.loads(json.dumps(value))
        known = self._tasks.setdefault(task_id, {})
        if dependency not in known or known[dependency] != value:
            known[dependency] = value
            self._changed.add(task_id)

    def in_(self, task_id: str) -> bool:
        """Whether anything is remembered of a task."""
        return task_id in self._tasks

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        if self._tasks.pop(task_id, None) is not None:
            self._changed.add(task_id)

    def remove_all(self) -> None:
        """Forget all tasks."""
        for task_id in tuple(self._tasks):
            self.remove(task_id)

    def dump(self) -> None:
        """Write what has changed, if anything has; a checkout that cannot be written is fine otherwise."""
        if not self._changed:
            return
        path = Path(self.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(f"{path.name}.lock")):
                others = {name: task for name, task in self._load(again=True).items() if name not in self._changed}
                mine = {name: self._tasks[name] for name in self._changed if name in self._tasks}
                data = json.dumps({**others, **mine}, sort_keys=True, separators=(",", ":"))
                files.write_atomically(path, data.encode(), mode=0o644)
        except OSError as error:
            raise BuildError(
                f"cannot be written: {error.strerror}",
                where=self.name,
                hint="finished tasks are looked at again in the next run",
            ) from None
        self._changed.clear()

    def _load(self, *, again: bool = False) -> _Tasks:
        try:
            data = Path(self.name).read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BuildError(f"cannot be read: {error.strerror}", where=self.name, hint="remove it") from None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and all(isinstance(task, dict) for task in found.values()):
            return found
        if not again:
            ui.line(f"note: {self.name} is damaged; it is made again, and every task is looked at anew")
        return {}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # A file that only we can open: whoever can open one can hold its lock.
    descriptor = files.open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
