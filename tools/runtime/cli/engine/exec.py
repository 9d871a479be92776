# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime exec`: a further process in a container that runs."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.oci import config, execs
from tools.launcher.oci.container import Container, ContainerProcess
from tools.runtime.cli import words
from tools.runtime.cli.main import Context
from tools.runtime.life import execs as relays
from tools.runtime.life.create import has_stdin, write_pid
from tools.runtime.life.folder import CONFIG, DOCUMENT, ContainerError, Folder
from tools.sev.workload import reader
from tools.sev.workload.document import Document

_KNOWN = {
    "--process": True, "--console-socket": True, "--pid-file": True, "--detach": False, "--no-new-privs": False,
}  # fmt: skip
_SHORT = {"-p": "--process", "-d": "--detach"}


def run(given: list[str], context: Context) -> int:
    """Returns once it runs (--detach), or with its status."""
    found = words.parse(given, _KNOWN, short=_SHORT, stop=True)
    if not found.rest:
        raise UserError("exec takes a container id")
    folder = Folder(context.root, found.rest[0])
    folder.require()
    container = config.parse(folder.read(CONFIG), where=CONFIG, folder=Path(folder.path))
    process = _process(found, container)
    console = found.get("--console-socket")
    if process.terminal is not (console is not None):
        raise UserError("a terminal needs --console-socket, and that needs a terminal")
    document = reader.parse(folder.read(DOCUMENT), where=DOCUMENT)
    asked = relays.Asked(
        folder=folder,
        request=_request(document, container, process),
        console=None if console is None else str(Path(console).absolute()),
    )
    started = relays.Exec(asked)
    started.wait_started()
    pid_file = found.get("--pid-file")
    if pid_file is not None:
        write_pid(Path(pid_file), started.pid)
    return 0 if found.has("--detach") else started.wait()


def _process(found: words.Words, container: Container) -> ContainerProcess:
    """What the engine's file says; without one, the words behind the id, as the workload's user."""
    file = found.get("--process")
    if file is not None:
        return config.process(config.contents(Path(file)), where=f"--process {file}")
    if len(found.rest) < 2:
        raise UserError("exec takes --process FILE, or a command behind the id")
    return dataclasses.replace(container.process, argv=tuple(found.rest[1:]), terminal=False)


def _request(document: Document, container: Container, process: ContainerProcess) -> dict[str, Any]:
    """What the monitor is asked; ContainerError where the document does not let the host start it."""
    stdin = has_stdin()
    common: dict[str, Any] = {
        "argv": list(process.argv),
        "terminal": process.terminal,
        "stdin_at_end": not stdin and not process.terminal,
    }
    if document.host_exec:
        one = execs.spawned(document, container, process, stdin=stdin)
        return common | {
            "env": [os.fsdecode(word) for word in one.env],
            "cwd": os.fsdecode(one.cwd),
            "uid": one.uid,
            "gid": one.gid,
            "groups": list(one.groups),
        }
    entry = execs.entry_of(document, container, process)
    if entry is None:
        raise ContainerError(
            f"permission denied: the workload document does not let the host start {json.dumps(process.argv[0][:80])}",
            hint="a protected container runs exactly the commands that its configuration or annotation names",
        )
    return common | {"entry": entry}
