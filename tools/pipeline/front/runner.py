# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Runs tasks side by side in threads, and ends them all when the run is to stop.

doit's own runner exchanges sys.stdout while an action runs, which threads would do to each other, and leaves
its threads alone on an interrupt. What has ended well by then is recorded here as done.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from doit.exceptions import BaseFail, TaskFailed
from doit.runner import MThreadRunner

from tools.pipeline.base import ambient, children, ui

_PATIENCE = 5.0  # seconds that threads have to clean up after an interrupt
_AWAKE = 0.2  # seconds until a thread that waits for a queue looks whether there was a signal


class _Turns:
    """Who may run now: any number at the same time, or one alone. First come, first served."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._running = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others."""
        with self._turn(alone=False):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run when nothing else does."""
        with self._turn(alone=True):
            yield

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and not self._alone and not (alone and self._running)
            )
            self._waiting.popleft()
            self._running += 1
            self._alone = alone
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = False
                self._changed.notify_all()


class _Queue(queue.Queue[Any]):
    """Whoever waits for it wakes now and then.

    The kernel may give a signal to any thread, and Python's handler runs in the main one, when that runs again: if it
    waits for a step, a Ctrl-C would wait as long.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while block and timeout is None:
            with suppress(queue.Empty):
                return super().get(timeout=_AWAKE)
        return super().get(block, timeout)


class Runner(MThreadRunner):  # type: ignore[misc]  # doit has no type information
    """doit's runner with threads, made fit to be stopped."""

    Queue = staticmethod(_Queue)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._threads: list[threading.Thread] = []
        self._turns = _Turns()
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
        task.executed = True
        task.init_options()
        # A task that talks to the terminal itself, or measures, says `"io": {"capture": False}`.
        with self._turns.shared() if task.io.capture else self._turns.alone():
            return self._execute(task)

    def _execute(self, task: Any) -> BaseFail | None:
        self.reporter.execute_task(task)
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
