# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Runs tasks side by side in threads, and ends them all when the run is to stop.

doit's own runner exchanges sys.stdout while an action runs, which threads would do to each other, and leaves
its threads alone on an interrupt. What has ended well by then is recorded here as done.
"""

import queue
import threading
from contextlib import suppress
from typing import Any

from doit.exceptions import BaseFail, TaskFailed
from doit.runner import MThreadRunner

from tools.pipeline.base import ambient, children, ui

_PATIENCE = 5.0  # seconds that threads have to clean up after an interrupt


class Runner(MThreadRunner):  # type: ignore[misc]  # doit has no type information
    """doit's runner with threads, made fit to be stopped."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._threads: list[threading.Thread] = []
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()

    def _run_start_processes(self, job_q: Any, result_q: Any) -> list[threading.Thread]:
        self._results = result_q
        self._jobs = job_q
        self._threads = super()._run_start_processes(job_q, result_q)
        return self._threads

    def execute_task(self, task: Any) -> BaseFail | None:
        """Run the actions of a task, in a thread of its own."""
        if task.teardown:
            self.teardown_list.append(task)
        self.reporter.execute_task(task)
        task.executed = True
        task.init_options()
        # Without capture and without streams, doit leaves sys.stdout and sys.stderr as they are.
        task.io.capture = False
        try:
            with ui.task(task.name):
                for action in task.actions:
                    failure = action.execute(None, None)
                    if isinstance(failure, BaseFail):
                        return failure
                    task.result = action.result
                    task.values.update(action.values)
        except children.Interrupted:
            return TaskFailed("interrupted")
        finally:
            self.reporter.end_task(task)
        return None

    def run_tasks(self, task_dispatcher: Any) -> None:
        """Run all; when that is cut short, end what runs and keep what has ended well."""
        try:
            super().run_tasks(task_dispatcher)
        except BaseException:
            self._stop(task_dispatcher)
            raise

    def _stop(self, task_dispatcher: Any) -> None:
        self._stop_running = True
        children.stop()
        limit = ambient.monotonic() + _PATIENCE
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, limit - ambient.monotonic()))
        ui.interrupted()
        while not self._results.empty():
            result = self._results.get()
            node = task_dispatcher.nodes.get(result.get("name"))
            if node is not None and "out" in result:
                self._process_result(node, node.task, result)
        # Standard output may be what cut it short.
        with suppress(OSError):
            self.reporter.interrupted()
