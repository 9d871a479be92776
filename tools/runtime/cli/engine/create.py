# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime create`: the guest boots, and waits for its start."""

from pathlib import Path

from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.config import settings
from tools.runtime.life import create
from tools.runtime.life.folder import Folder

_KNOWN = {
    "--bundle": True, "--pid-file": True, "--console-socket": True, "--no-pivot": False, "--no-new-keyring": False,
    "--preserve-fds": True, "--pidfd-socket": True,
}  # fmt: skip


def run(given: list[str], context: Context) -> int:
    """Returns once the guest is there."""
    found = words.parse(given, _KNOWN, short={"-b": "--bundle"})
    pid_file, console = found.get("--pid-file"), found.get("--console-socket")
    create.create(
        create.Asked(
            folder=Folder(context.root, words.only_id(found, "create")),
            bundle=Path(found.get("--bundle") or ".").absolute(),
            settings=settings.load(context.config),
            engine_log=context.engine_log,
            pid_file=None if pid_file is None else Path(pid_file).absolute(),
            systemd=context.systemd_cgroup,
            console=None if console is None else str(Path(console).absolute()),
        )
    )
    return 0
