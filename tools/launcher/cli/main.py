# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Dispatch, and the one place where errors become a line and an exit status. Imports nothing that is slow."""

import sys

from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.base.ui import NAME, Ui, write_stdout
from tools.launcher.cli import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = ("--help", "-h")
# signal.SIGINT, signal.SIGPIPE: that module takes a third of the time that --help has.
_SIGINT, _SIGPIPE = 2, 13


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command; returns the exit status and never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    own = words[: words.index("--")] if "--" in words else words
    ui = Ui(quiet="--quiet" in own)
    try:
        return _dispatch(words, own, ui)
    except LauncherError as error:
        if error.exit_status == 128 + _SIGINT:
            return error.exit_status  # whoever pressed Ctrl-C knows
        ui.error(str(error))
        for line in error.details:
            ui.detail(line)
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + _SIGINT
    except BrokenPipeError:
        # Whoever read our answer left. Nothing of it is in Python's buffers, which it would complain about.
        return 128 + _SIGPIPE
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        ui.error(f"{where}{error.strerror or error}")
        return LauncherError.exit_status


def _dispatch(words: list[str], own: list[str], ui: Ui) -> int:
    if words[:1] and words[0] in _HELP:
        write_stdout(registry.overview())
        return 0
    if words[:1] == ["--source"]:
        if len(words) != 2:
            raise UserError("--source takes one folder, which must not exist", hint=f"see {NAME} --help")
        from tools.launcher.options.source import unpack  # noqa: PLC0415 (start-up: --help alone does without)

        unpack(words[1])
        return 0
    name = registry.check_name(words)
    command = _module(name)
    from tools.launcher.options.parser import help_text, parse  # noqa: PLC0415 (start-up: --help alone does without)

    if any(word in _HELP for word in own[1:]):
        write_stdout(help_text(name, registry.COMMANDS[name], command.SYNTAX))
        return 0
    status: int = command.run(parse(command.SYNTAX, words[1:], command=name), ui)
    return status


def _module(name: str) -> "_Any":
    return __import__(f"tools.launcher.cli.{name}", fromlist=("",))


if TYPE_CHECKING:
    from typing import Any as _Any
