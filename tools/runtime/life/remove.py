# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The end of a container: what is left of it is undone, then the engine's hooks run. `delete` imports this."""

from tools.runtime.life.folder import HOOKS, Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tools.runtime.base.log import EngineLog


def remove(folder: Folder, engine_log: "EngineLog") -> None:
    """Undo it; a poststop hook that fails is said in the engine's log, and the others run."""
    later = folder.read(HOOKS) if folder.has(HOOKS) else b""
    state = folder.state() if later else b""
    folder.remove()
    if not later:
        return
    import json  # noqa: PLC0415  start-up

    from tools.launcher.base.errors import LauncherError  # noqa: PLC0415  the same
    from tools.runtime.life import hooks  # noqa: PLC0415  the same

    bundle = json.loads(state)["bundle"]
    for hook in hooks.unpacked(later, "poststop"):
        try:
            hooks.run("poststop", [hook], state, bundle=bundle)
        except LauncherError as error:
            engine_log.warning(str(error))
