# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime delete`: what is left of a container that has ended; --force: of any."""

import os

from tools.runtime.cli import words
from tools.runtime.life import remove
from tools.runtime.life.folder import ContainerError, Folder, wait_for_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tools.runtime.cli.main import Context

_KILL = 9
_PATIENCE = 10.0


def run(given: list[str], context: "Context") -> int:
    """Returns once nothing is left."""
    found = words.parse(given, {"--force": False}, short={"-f": "--force"})
    folder = Folder(context.root, words.only_id(found, "delete"))
    if found.has("--force") and not folder.has("."):
        return 0
    pid = folder.monitor()
    if pid is not None:
        if not found.has("--force"):
            raise ContainerError(f"cannot be deleted: it is {folder.status()}", where=folder.name, hint="kill it first")
        os.kill(pid, _KILL)
        wait_for_end(pid, _PATIENCE)
    elif not found.has("--force"):
        folder.require()
    remove.remove(folder, context.engine_log)
    return 0
