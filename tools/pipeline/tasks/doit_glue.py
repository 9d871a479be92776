# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What doit needs to keep the project's promises: one-line errors, exit statuses.

doit ends with 2 for a TaskError and 1 for a TaskFailed, which is what users were promised for their own
mistakes and for failed builds.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doit.exceptions import BaseFail, TaskError, TaskFailed

from tools.pipeline.base import ambient, ui
from tools.pipeline.base.errors import SevArtifactsError, UserError
from tools.pipeline.front.commands import Removal
from tools.pipeline.tasks.project import Project

Task = dict[str, Any]
"""A doit task: the keys that doit documents."""


def option(name: str, text: str, default: str = "", *, long: str | None = None) -> dict[str, Any]:
    """A parameter --NAME WORD of a task; `long` is what people type, where it is not the argument's name.

    All are strings: doit's own conversions answer a mistake with a status and a usage of its own.
    """
    return {"name": name, "long": long or name.replace("_", "-"), "type": str, "default": default, "help": text}


def switch(name: str, text: str, *, long: str | None = None) -> dict[str, Any]:
    """A parameter --NAME of a task, which is set or not."""
    return {**option(name, text, long=long), "type": bool, "default": False}


def action(work: Callable[..., object]) -> Callable[..., bool | BaseFail]:
    """Wrap the work of a task: our errors become doit's, without a traceback.

    doit hands the task's parameters to arguments of the same name, which it looks up in the signature of `work`.
    """

    @functools.wraps(work)
    def run(**parameters: object) -> bool | BaseFail:
        try:
            work(**parameters)
        except SevArtifactsError as error:
            kind = TaskError if isinstance(error, UserError) else TaskFailed
            return kind(str(error))
        except OSError as error:
            # Full disks, missing rights: the machine's state, not a bug of ours.
            what = f"{error.strerror or error}: {error.filename}" if error.filename else error.strerror or str(error)
            return TaskFailed(what)
        return True

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


def config(build: Path, *, default: str, ended: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """DOIT_CONFIG. `ended` is called after the last task of a run, whether it went well; not after an interrupt."""
    return {
        "default_tasks": [default],
        "backend": "state",
        "dep_file": os.fspath(build / "doit.db"),
        # Tasks wait for programs; how many processes those start is bounded elsewhere.
        "num_process": ambient.cpu_count(),
        "ended": ended,
    }


def remove(*paths: Path) -> list[Removal]:
    """The `clean` of a task."""
    return [Removal(paths)]
