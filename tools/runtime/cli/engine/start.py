# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime start`: what `create` made begins to run."""

from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.life import talk
from tools.runtime.life.folder import HOOKS, Folder, wait_for_end

_POSTSTART = "poststart"
_PATIENCE = 10.0


def run(given: list[str], context: Context) -> int:
    """Returns once the workload runs, and the engine's hooks have run."""
    folder = Folder(context.root, words.only_id(words.parse(given, {}), "start"))
    pid = folder.monitor()
    try:
        talk.ask(folder, "start")
    except talk.OverError:
        # Engines delete what did not start at once, and take it for running until its process has ended.
        if pid is not None:
            wait_for_end(pid, _PATIENCE)
        raise
    if folder.has(HOOKS):
        _hooks(folder)
    return 0


def _hooks(folder: Folder) -> None:
    import json  # noqa: PLC0415  start-up

    from tools.launcher.base.errors import LauncherError  # noqa: PLC0415  the same
    from tools.runtime.life import hooks  # noqa: PLC0415  the same

    state = folder.state()
    try:
        hooks.run(
            _POSTSTART, hooks.unpacked(folder.read(HOOKS), _POSTSTART), state, bundle=json.loads(state)["bundle"]
        )  # fmt: skip
    except LauncherError:
        talk.ask(folder, "stop")
        raise
