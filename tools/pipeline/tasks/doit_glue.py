# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What doit needs to keep the project's promises: content hashes, one-line errors, exit statuses.

doit ends with 2 for a TaskError and 1 for a TaskFailed, which is what users were promised for their own
mistakes and for failed builds.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from doit.dependency import FileChangedChecker
from doit.exceptions import BaseFail, TaskError, TaskFailed
from doit.reporter import ConsoleReporter

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import SevArtifactsError, UserError
from tools.pipeline.tasks.project import Project

Task = dict[str, Any]
"""A doit task: the keys that doit documents."""


class ContentChecker(FileChangedChecker):  # type: ignore[misc]  # doit has no type information
    """Compares SHA-256 of the content, always.

    doit's own checker takes a file with an unchanged time for unchanged, and build outputs that are stamped
    with a fixed time would then change unseen.
    """

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: str) -> bool:  # noqa: ARG002
        """Whether the file differs from what was recorded."""
        return files.of_file(Path(file_path)) != state

    def get_state(self, dep: str, current_state: str | None) -> str | None:
        """What to record; None means unchanged."""
        new = files.of_file(Path(dep))
        return None if new == current_state else new


def action(work: Callable[[], object]) -> Callable[[], bool | BaseFail]:
    """Wrap the work of a task: our errors become doit's, without a traceback."""

    def run() -> bool | BaseFail:
        try:
            work()
        except SevArtifactsError as error:
            kind = TaskError if isinstance(error, UserError) else TaskFailed
            return kind(str(error))
        except OSError as error:
            # Full disks, missing rights: the machine's state, not a bug of ours.
            what = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
            return TaskFailed(what)
        return True

    # doit shows the action's name in `doit info`.
    run.__name__ = getattr(work, "__name__", "run")
    return run


def load_or_exit(load: Callable[[], Project], *checks: Callable[[Project], object]) -> Project:
    """Load the project for dodo.py; a bad recipe ends the command with its line and status 2.

    `checks` raise what task creators would raise later, where doit shows a traceback for it.
    """
    # SystemExit passes through doit; any other exception would come out as a traceback.
    try:
        project = load()
        for check in checks:
            check(project)
    except UserError as error:
        ui.line(f"doit: {ui.paint('error', '31')}: {error}")
        raise SystemExit(error.exit_status) from None
    return project


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit has no type information
    """doit's console reporter with one line for a failure, and a word when there was nothing to do."""

    desc = "one line a task, one line a failure"

    def __init__(self, outstream: TextIO, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self._executed = 0
        self._failed = False

    def execute_task(self, task: Any) -> None:
        """A task starts."""
        if task.actions:
            self._executed += 1
        super().execute_task(task)
        self.outstream.flush()

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """A task failed: its line, and a traceback only for what is a bug."""
        self._failed = True
        message = (fail.message or "").strip() or "failed"
        bug = bool(fail.traceback)
        # Our own details are lines of their own (errors.py); what else has several is made one.
        text = message if bug else re.sub(r"\n(?! {3})", " ", message)
        sys.stdout.flush()
        ui.line(f"{ui.paint('error', '31')}: {task.name}: {text}")
        if bug:
            ui.line("".join(fail.traceback))

    def runtime_error(self, msg: str) -> None:
        """Doit itself could not go on."""
        self._failed = True
        ui.line(f"{ui.paint('error', '31')}: {msg}")

    def complete_run(self) -> None:
        """The end of the run."""
        if not self._failed and not self._executed:
            self.write("nothing to do, everything is up to date\n")


def _one_line_for_interrupts(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C is no bug: doit lets it through to the interpreter, which would print where it was."""
    if issubclass(kind, KeyboardInterrupt):
        ui.line(f"{ui.paint('interrupted', '31')}; the next run goes on from the last finished step")
    else:
        sys.__excepthook__(kind, error, trace)


def config(project: Project, *, default: str) -> dict[str, Any]:
    """DOIT_CONFIG."""
    sys.excepthook = _one_line_for_interrupts
    # sqlite does not make the folder of its database.
    project.build.mkdir(exist_ok=True)
    return {
        "default_tasks": [default],
        "reporter": Reporter,
        "check_file_uptodate": ContentChecker,
        # dbm would leave several files, named after whichever dbm module the host has.
        "backend": "sqlite3",
        "dep_file": os.fspath(project.build / "doit.db"),
        "par_type": "thread",
        "verbosity": 2,
    }


def remove(*paths: Path) -> list[Callable[[], None]]:
    """The `clean` of a task: whole folders too, which doit's own clean leaves alone when not empty."""
    import shutil  # noqa: PLC0415 (only `doit clean` needs it)

    def clean() -> None:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return [clean]
