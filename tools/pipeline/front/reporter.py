# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of tasks, for several that run at once. One line a task on standard output:

    up to date   fetch:sources
    started      kernel:production          (not on a terminal, which shows what runs)
    done         kernel:production  4 min 07 s

and one line a failure on standard error.
"""

import re
import threading
from typing import Any, TextIO

from doit.exceptions import BaseFail, UnmetDependency
from doit.reporter import ConsoleReporter

from tools.pipeline.base import ambient, children, ui

_WIDTH = 13


def started(log: str) -> list[str]:
    """Names of the tasks that a run executed, from its standard output in a file, in their order."""
    word = "started".ljust(_WIDTH)
    return [text.removeprefix(word) for text in log.splitlines() if text.startswith(word)]


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit has no type information
    """Lines for people; called from the threads that execute tasks, and from the main thread."""

    desc = "one line a task, one line a failure"

    def __init__(self, outstream: TextIO, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self._live = ambient.is_terminal(outstream)
        self._lock = threading.Lock()
        self._running: dict[str, float] = {}
        self._took: dict[str, str] = {}
        self._executed = 0
        self._failed = False

    def _say(self, word: str, task: Any, more: str = "") -> None:
        if not task.name.startswith("_"):
            ui.result(f"{word.ljust(_WIDTH)}{task.title()}{more}\n", self.outstream)

    def execute_task(self, task: Any) -> None:
        """A task starts."""
        # A group has nothing to execute; what is not listed is not counted either.
        if not task.actions or task.name.startswith("_"):
            return
        with self._lock:
            self._executed += 1
            self._running[task.name] = ambient.monotonic()
        if not self._live:
            self._say("started", task)

    def end_task(self, task: Any) -> None:
        """A task is no longer running; how it ended is said when its result is looked at."""
        with self._lock:
            began = self._running.pop(task.name, None)
            if began is not None:
                self._took[task.name] = f"  {ui.duration(ambient.monotonic() - began)}"

    def add_success(self, task: Any) -> None:
        """A task ended well."""
        if task.name in self._took:
            self._say("done", task, self._took[task.name])

    def skip_uptodate(self, task: Any) -> None:
        """A task has nothing to do."""
        self._say("up to date", task)

    def skip_ignore(self, task: Any) -> None:
        """`doit ignore` was told to leave it out."""
        self._say("ignored", task)

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """A task failed: its line, and a traceback only for what is a bug."""
        self._failed = True
        if children.stopping():
            self._say("interrupted", task, self._took.get(task.name, ""))
            return
        message = (fail.message or "").strip() or "failed"
        if isinstance(fail, UnmetDependency):
            message = f"not run, for it needs what failed: {message}"
        bug = bool(fail.traceback)
        # Our own details are lines of their own (errors.py); what else has several is made one.
        text = message if bug else re.sub(r"\n(?! {3})", " ", message)
        texts = [f"{ui.paint('error', '31')}: {task.name}: {text}"]
        if bug:
            texts.append("".join(fail.traceback))
        with self._lock:
            running = ", ".join(self._running)
        if running:
            texts.append(f"   waiting for what still runs: {running}")
        ui.lines(texts)

    def runtime_error(self, msg: str) -> None:
        """Doit itself could not go on."""
        self._failed = True
        ui.error(msg)

    def cleanup_error(self, exception: BaseFail) -> None:
        """A teardown failed."""
        ui.error(exception.get_msg())

    def interrupted(self) -> None:
        """The run stops: say it of all tasks that did not come to their end."""
        self._failed = True
        with self._lock:
            left = tuple(self._running)
            self._running.clear()
        for name in left:
            ui.result(f"{'interrupted'.ljust(_WIDTH)}{name}\n", self.outstream)

    def complete_run(self) -> None:
        """The end of the run."""
        if not self._failed and not self._executed:
            ui.result("nothing to do, everything is up to date\n", self.outstream)
