# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What doit needs to keep the project's promises: content hashes, one-line errors, exit statuses.

doit ends with 2 for a TaskError and 1 for a TaskFailed, which is what users were promised for their own
mistakes and for failed builds.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doit.dependency import FileChangedChecker
from doit.exceptions import BaseFail, TaskError, TaskFailed

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import SevArtifactsError, UserError
from tools.pipeline.front.commands import Removal
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
        ui.error(str(error), who="doit: ")
        raise SystemExit(error.exit_status) from None
    return project


def config(project: Project, *, default: str) -> dict[str, Any]:
    """DOIT_CONFIG."""
    return {
        "default_tasks": [default],
        "check_file_uptodate": ContentChecker,
        "backend": "state",
        "dep_file": os.fspath(project.build / "doit.db"),
        # Tasks wait for programs; how many processes those start is bounded elsewhere.
        "num_process": ambient.cpu_count(),
    }


def remove(*paths: Path) -> list[Removal]:
    """The `clean` of a task."""
    return [Removal(paths)]
