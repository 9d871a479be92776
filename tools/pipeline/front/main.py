# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit ARGUMENTS` once Python runs: a command, and how it ends.

Whatever goes wrong is one line on standard error. Status 2 for the user's mistake, 1 for what failed, 130 (143,
129) after Ctrl-C (SIGTERM, SIGHUP); a traceback means a bug of ours.
"""

import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any, NoReturn

from doit.cmd_base import DodoTaskLoader
from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from tools.pipeline.base import children, ui
from tools.pipeline.base.errors import BuildError, SevArtifactsError, UserError
from tools.pipeline.front.commands import COMMANDS

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asks us to stop."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = int(number)


def _stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (signal's interface)
    # The next one ends us at once, whatever is being cleaned up.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise Stopped(number)


def run(argv: Sequence[str]) -> NoReturn:
    """The whole process: the command, and the end with its status or by its signal."""
    for number in _SIGNALS:
        # Ignored by a shell's `&` or by nohup: stays so.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    lost = sys.stdout is None
    if lost:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (lives as long as the process)
    elif hasattr(sys.stdout, "reconfigure"):
        # A locale that cannot say "…" must not end a build.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(argv, output_lost=lost)
        sys.stdout.flush()
    except OSError as error:
        status = _output_lost(error)
    except Stopped as stop:
        _die(stop.number)
    except KeyboardInterrupt:
        _die(signal.SIGINT)
    # Threads that did not end (a download that hangs) do not keep us.
    _leave(status)


def main(argv: Sequence[str], *, loader: Any = None, output_lost: bool = False) -> int:
    """Run one command and return its exit status; `loader` is doit's, for a graph that is no dodo.py.

    `output_lost`: there is no standard output; what only prints there is an error.
    """
    words = list(argv)
    commands = {kind.get_name(): kind for kind in COMMANDS}  # type: ignore[attr-defined]  # doit has no type information
    name = words.pop(0) if words and words[0] in commands else "run"
    if words and words[0] in {"-h", "--help"} and name == "run":
        name, words = "help", []
    loader = loader or DodoTaskLoader()
    loader.cmd_names = sorted(commands)
    loader.config = {}
    command = commands[name](task_loader=loader, config={}, bin_name="./doit", cmds=_Table(commands), opt_vals={})
    try:
        if "" in argv:
            # An unset variable in a script, mostly; doit looks at the first character of each word.
            raise UserError("an argument is empty", hint="see ./doit help, or of a TASK")
        if output_lost and name != "run":
            raise BuildError("it is closed", where="standard output", hint=f"./doit {name} prints there")
        command.output_lost = output_lost
        status = command.parse_execute(words)
    except CmdParseError as error:
        return _unreadable(error, name, words, loader)
    except InvalidCommand as error:
        return _error(_unknown(error, {*commands, *(task.name for task in getattr(command, "task_list", ()))}))
    except (InvalidDodoFile, InvalidTask) as error:
        return _error(BuildError(" ".join(str(error).split()), where="dodo.py"))
    except SevArtifactsError as error:
        return _error(error)
    except OSError as error:
        if not error.filename:
            raise
        return _error(BuildError(f"{error.strerror or error}", where=str(error.filename)))
    return int(status or 0)


class _Table(dict[str, Any]):
    """The commands as doit's Help wants them."""

    def to_dict(self) -> dict[str, Any]:
        return self

    def get_plugin(self, name: str) -> Any:
        return self[name]


def _unreadable(error: CmdParseError, name: str, words: list[str], loader: Any) -> int:
    # Its own text repeats every option that there is.
    cause = error.__context__
    what = getattr(cause, "msg", None) or str(error).splitlines()[0]
    whose = words[0] if name == "run" and words else name
    if re.match(r"option (-h|--help) not recognized", what) and not whose.startswith("-"):
        return main(["help", whose], loader=loader)  # `./doit TASK --help`, as people type it
    return _error(UserError(what, hint=f"see ./doit help {name if name != 'run' else 'run, or of a TASK'}"))


def _unknown(error: InvalidCommand, names: Iterable[str]) -> UserError:
    quoted = re.match(r"'(.*)' is not a task", str(error))
    name = error.not_found or (quoted[1] if quoted else None)
    if name is None:
        return UserError(" ".join(str(error).split()))
    # Only a mistake pays for the import.
    import difflib  # noqa: PLC0415 (start-up: only a mistyped name needs it)

    close = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(close)}?" if close else "./doit list shows what there is"
    return UserError(f"no task or command is called {name!r}", hint=meant)


def _error(error: SevArtifactsError) -> int:
    ui.error(str(error), who="doit: ")
    return error.exit_status


def _output_lost(error: OSError) -> int:
    children.stop()
    what = "nobody reads it any more" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
    # What is left in its buffer cannot be written either, and Python would say so at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _error(BuildError(what, where="standard output", hint="stopped"))


def _die(number: int) -> NoReturn:
    """End as a process that the signal has ended: that is how a shell knows that it must not go on."""
    ui.line(f"{ui.paint('interrupted', '31')}; the next run goes on from the last finished step")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # The first process of a container is not ended by signals.
    _leave(128 + number)


def _leave(status: int) -> NoReturn:
    for out in (sys.stdout, sys.stderr):
        if out is not None:
            out.flush()
    os._exit(status)
