# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that changes while its guest runs: what was right at the start says nothing of what is read later."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Undefended
from tools.attack.base.target import Target
from tools.attack.catalogue.storage.blocks import where
from tools.attack.guests import agent, bound, disks
from tools.attack.guests.disks import DECIDE, HONEST, Disk
from tools.attack.undefended.agent import ignoring_corruption
from tools.sev.workload.document import Document, Doors

_UP = b"up\n"
_WAITS = f"echo up; read x; {DECIDE}"


def attempt(lab: Lab, target: Target, folder: Path, *, payload: bytes) -> Outcome:
    """Start the program from the owner's disk; once it runs, change the list of who is denied."""
    disk = disks.hashed(lab)
    bound.honest(lab, target, folder, disk)
    document = _document(disk)
    with bound.guest(lab, target, folder, disk=disk.data, document=document) as guest:
        guest.bound(document.data)

        def heard(out: bytes) -> None:
            if out == _UP:
                with (folder / "disk").open("r+b") as file:
                    file.seek(where(disk.data, b"mallory\n"))
                    file.write(payload)
                guest.send(agent.STDIN, 1, b"\n")

        told = disks.listen(guest, start=(agent.RUN, agent.run_entry(flags=0)), heard=heard)
    return Outcome(succeeded=told.out not in {b"", _UP} and told.out != _UP + HONEST and told.exited, guest=told.words)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, payload in (("changed-later", b"nobody__"), ("zeroed-later", bytes(8))):
        yield Attack(
            name=name,
            host=f"{'overwrites' if any(payload) else 'zeroes'} a block that the running guest has not read yet",
            attempt=partial(attempt, payload=payload),
            control=Undefended(what="an agent whose dm-verity ignores corruption", target=ignoring_corruption),
            parts=frozenset({Part.KERNEL, Part.AGENT}),
        )


def _document(disk: Disk) -> Document:
    """The program waits for a line."""
    document = disk.document
    process = replace(document.process, argv=("sh", "-c", _WAITS), host=Doors(stdin=True))
    return replace(document, process=process)
