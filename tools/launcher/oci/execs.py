# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An exec that an engine asks for: an entry of the document, or a command where the document leaves that open."""

from tools.launcher.base.errors import UserError
from tools.launcher.channel.requests import Process
from tools.launcher.oci.container import Container, ContainerProcess
from tools.launcher.oci.translate import environment
from tools.sev.workload.document import Document

_HOSTNAME = "HOSTNAME"


def entry_of(document: Document, container: Container, process: ContainerProcess) -> int | None:
    """The number that RUN has for the entry of the document that is this very process, from 1; None: there is none."""
    wanted = environment(container, process)
    # podman leaves it out here, and the own group out of the further ones; for the container it does neither.
    wanted.pop(_HOSTNAME, None)
    for number, entry in enumerate(document.exec, 1):
        named = entry.process
        found = dict(one.split("=", 1) for one in named.environment)
        found.pop(_HOSTNAME, None)
        if (
            (named.argv, named.cwd, named.uid, named.gid, named.terminal)
            == (process.argv, process.cwd, process.uid, process.gid, process.terminal)
            and {named.gid, *named.groups} == {process.gid, *process.groups}
            and found == wanted
            and named.sets == process.capabilities
        ):
            return number
    return None


def spawned(document: Document, container: Container, process: ContainerProcess, *, stdin: bool) -> Process:
    """What SPAWN carries; UserError for privileges that the container itself does not have."""
    more = sorted(set(process.capabilities.bounding) - set(document.process.sets.bounding))
    if more:
        raise UserError(
            f"refused (from exec --privileged): {', '.join(more[:4])} … are not the container's",
            where="process.capabilities",
        )
    return Process(
        argv=[word.encode() for word in process.argv],
        env=[f"{name}={value}".encode() for name, value in environment(container, process).items()],
        cwd=process.cwd.encode(),
        uid=process.uid,
        gid=process.gid,
        groups=process.groups,
        stdin_at_end=not stdin and not process.terminal,
        size=(process.size or (0, 0)) if process.terminal else None,
    )
