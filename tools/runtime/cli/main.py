# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Dispatch, and the one place where errors become a line in the engine's log and an exit status.

Imports nothing that is slow, and a command's module only when it is called.
"""

import sys

from tools.launcher.base.errors import LauncherError, UserError, suggestion
from tools.runtime.base.log import NAME, EngineLog
from tools.runtime.cli import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

ENGINE = ("create", "start", "state", "kill", "delete", "exec", "ps", "pause", "resume", "features")
PEOPLE = ("install", "doctor", "document", "source")
COMMANDS = (*ENGINE, *PEOPLE)
USAGE, SHORT = ("--help", "--version"), {"-h": "--help", "-v": "--version"}
_FAILED, _MISTAKEN, _INTERRUPTED = 1, 2, 130


class Context:
    """What stood before the command."""

    def __init__(self, found: words.Words) -> None:
        self.root = (found.get("--root") or words.ROOT).rstrip("/") or "/"
        self.config = found.get("--config")
        self.systemd_cgroup = found.has("--systemd-cgroup") or found.get("--cgroup-manager") == "systemd"
        self.engine_log = EngineLog(found.get("--log"), as_json=found.get("--log-format") == "json")


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command; returns the exit status and never raises."""
    context = Context(words.Words())
    mistaken = _MISTAKEN
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        found = words.parse(given or ["--help"], words.GLOBAL, short=SHORT, stop=True)
        context = Context(found)
        for name in USAGE:
            if found.has(name):
                return int(_module("usage").run([name], context))
        if not found.rest:
            raise UserError("a command is missing", hint=f"see {NAME} --help")
        name, rest = found.rest[0], found.rest[1:]
        if name not in COMMANDS:
            close = suggestion(name[:80], COMMANDS)
            raise UserError(f"unknown command {name[:80]!r}{close}", hint=f"known are {', '.join(COMMANDS)}")
        mistaken = _MISTAKEN if name in PEOPLE else _FAILED  # what engines call fails as runc does
        if rest[:1] in (["--help"], ["-h"]):
            name, rest = "usage", [name]
        return int(_module(name).run(rest, context))
    except LauncherError as error:
        context.engine_log.error("; ".join([str(error), *error.details]))
        return mistaken if isinstance(error, UserError) else _FAILED
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        context.engine_log.error(where + (error.strerror or str(error)))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return _FAILED


def _module(name: str) -> "Any":
    folder = "engine." if name in ENGINE else "people." if name in PEOPLE else ""
    return __import__(f"tools.runtime.cli.{folder}{name}", fromlist=("",))
