# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of `./doit`: doit's own, with our runner, our state and words that a user understands."""

import os
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doit import cmd_clean, cmd_forget, cmd_help, cmd_info, cmd_list, cmd_run
from doit.cmd_base import check_tasks_exist
from doit.control import TaskControl
from doit.task import Stream

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.front.reporter import Reporter
from tools.pipeline.front.runner import Runner
from tools.pipeline.front.state import State

_COLUMNS = 100
_FEW = 8  # subtasks that `list` names; more of them are counted


class _Ours:
    """What all commands have in common. `output_lost`: there is no standard output."""

    output_lost = False

    def get_backends(self) -> dict[str, type]:
        """One state, and no search for plugins of others."""
        return {"state": State}

    def get_reporters(self) -> dict[str, type]:
        """One reporter."""
        return {"console": Reporter}


class _Control(TaskControl):  # type: ignore[misc]  # doit has no type information
    """doit's choice of tasks, which forgets whatever follows a task that is named for the second time."""

    def _process_filter(self, task_selection: list[str]) -> list[str]:
        names: list[str] = []
        rest = list(task_selection)
        while rest:
            name = rest.pop(0)
            task = self.tasks.get(name)
            if task is None:
                # A pattern, or nothing: neither takes options.
                names += super()._process_filter([name])
            elif task.options is None:
                names.append(name)
                rest = task.init_options(rest)
            elif rest and rest[0].startswith("-"):
                raise UserError(f"{name} is named twice", hint="give its options once")
        return names


class Run(_Ours, cmd_run.Run):  # type: ignore[misc]  # doit has no type information
    """`./doit TASK…`, the command that needs no name."""

    doc_usage = "[TASK ...]"
    cmd_options = (cmd_run.opt_always, cmd_run.opt_continue, cmd_run.opt_num_process, cmd_run.opt_single)

    def _execute(
        self, always: bool, continue_: bool, num_process: int, single: bool, ended: Callable[[], object]
    ) -> int:
        # `ended` is of DOIT_CONFIG: doit hands its values to arguments of the same name, as it does with options.
        control = _Control(self.task_list)
        control.process(self.sel_tasks)
        if single:
            for name in control.selected_tasks:
                task = control.tasks[name]
                for alone in task.task_dep if task.has_subtask else [name]:
                    control.tasks[alone].task_dep = []
        selected = [control.tasks[name] for name in control.selected_tasks]
        if self.output_lost and (asked := next(filter(_answers, selected), None)):
            # It would end with status 0, and nobody would have heard it.
            raise BuildError("it is closed", where="standard output", hint=f"./doit {asked.name} prints there")
        runner = Runner(
            self.dep_manager,
            # What a task answers on standard output is not to be mixed with what is said of tasks.
            Reporter(ui.stream() if any(map(_answers, selected)) else self.outstream, {}),
            continue_,
            always,
            Stream(2),
            max(1, num_process),
        )
        status: int = runner.run_all(control.task_dispatcher())
        ended()
        return status


def _answers(task: Any) -> bool:
    return bool((task.meta or {}).get("answers"))


class List(_Ours, cmd_list.List):  # type: ignore[misc]  # doit has no type information
    """`./doit list`."""

    def _execute(  # noqa: PLR0917 (doit's interface)
        self,
        subtasks: bool,
        quiet: bool,
        status: bool,
        private: bool,
        list_deps: bool,
        template: str | None,
        sort: str,
        pos_args: list[str],
    ) -> int:
        if subtasks or quiet or status or private or list_deps or template or pos_args:
            done: int = super()._execute(subtasks, quiet, status, private, list_deps, template, sort, pos_args)
            return done
        # In the order of dodo.py, which puts first what people type; a task's variants stand below it.
        names = {task.name for task in self.task_list}
        shown = [t for t in self.task_list if t.name.partition(":")[0] not in names - {t.name} and t.name[0] != "_"]
        width = max((len(task.name) for task in shown), default=0) + 2
        for task in shown:
            variants = [other.name for other in self.task_list if other.name.startswith(f"{task.name}:")]
            words = "  ".join(variants)
            if len(variants) > _FEW:
                words = f"{task.name}:NAME, {len(variants)} of them; ./doit list --all {task.name} names them"
            lines = textwrap.wrap(words, _COLUMNS - width, break_on_hyphens=False, break_long_words=False)
            first, *rest = [task.doc, *lines]
            self.outstream.write(f"{task.name:<{width}}{first}\n")
            self.outstream.writelines(f"{'':<{width}}{line}\n" for line in rest)
        return 0


class Info(_Ours, cmd_info.Info):  # type: ignore[misc]  # doit has no type information
    """`./doit info TASK`."""

    doc_usage = "TASK ..."
    cmd_options = ()

    def _execute(self, pos_args: list[str]) -> int:
        tasks = {task.name: task for task in self.task_list}
        check_tasks_exist(tasks, pos_args)
        for name in pos_args:
            task = tasks[name]
            # doit's own answer names the functions that were asked, with all that they hold: megabytes.
            done = self.dep_manager.get_status(task, tasks).status == "up-to-date"
            options = " ".join(f"--{option['long']}" for option in task.params)
            lines = [name, f"   {task.doc}", f"   {'done' if done else 'to do'}"]
            lines += [f"   options  {options}"] if options else []
            lines += [f"   needs    {other}" for other in task.task_dep]
            ui.result("".join(f"{line}\n" for line in lines), self.outstream)
        return 0


class Forget(_Ours, cmd_forget.Forget):  # type: ignore[misc]  # doit has no type information
    """`./doit forget`."""

    doc_purpose = "take tasks for not done yet"


@dataclass(frozen=True)
class Removal:
    """The `clean` of a task: whole folders too, which doit's own clean leaves alone when not empty."""

    paths: tuple[Path, ...]

    def __call__(self, dryrun: bool) -> list[Path]:
        """Remove what is there; returns it."""
        found = [path for path in self.paths if os.path.lexists(path)]
        for path in found if not dryrun else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        return found


class Clean(_Ours, cmd_clean.Clean):  # type: ignore[misc]  # doit has no type information
    """`./doit clean`."""

    doc_purpose = "remove what tasks made in this checkout"

    def clean_tasks(self, tasks: list[Any], dryrun: bool, cleanforget: bool) -> None:
        """Remove what the tasks made, each once, and say what was removed."""
        word = "would remove" if dryrun else "removed"
        removed = set()
        for task in {task.name: task for task in tasks}.values():
            for action in task.clean_actions:
                for path in action.py_callable(dryrun):
                    if path not in removed:
                        removed.add(path)
                        ui.result(f"{word}  {os.path.relpath(path)}\n", self.outstream)
            if cleanforget and not dryrun:
                self.dep_manager.remove(task.name)
        if not removed:
            ui.result("nothing to remove\n", self.outstream)
        self.dep_manager.close()


class Help(_Ours, cmd_help.Help):  # type: ignore[misc]  # doit has no type information
    """`./doit help`."""

    def print_usage(self, cmds: dict[str, Any]) -> None:
        """What can be typed."""
        lines = ["./doit [TASK ...]      run tasks; without one: build"]
        lines += [f"./doit {name:<15} {cmds[name].doc_purpose}" for name in sorted(cmds) if name != "run"]
        lines += ["./doit help NAME       options of a command or of a task"]
        self.outstream.write("".join(f"{line}\n" for line in lines))


COMMANDS: tuple[type, ...] = (Help, Run, List, Info, Clean, Forget)
