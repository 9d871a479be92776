# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A container whose network is handed to a guest, as a monitor does it; started inside of the container's namespace.

Usage: python -m tests.runtime.network.container OUT QEMU ROOT SCRIPT [NAMESERVER]

Standard streams are the script's, and so is the exit status. The artifacts are those of the folder OUT.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

from tools.launcher.channel.requests import Run
from tools.launcher.channel.streams import STANDARD
from tools.launcher.guest.bring_up import brought_up
from tools.launcher.guest.spec import Accel, Wanted, resolve
from tools.launcher.host import facts
from tools.launcher.host.qemu_program import find_qemu
from tools.launcher.host.qemu_user import choose
from tools.runtime.network.attach import attach
from tools.sev.formats import NETWORK, RUNTIME_NAME, with_addition
from tools.sev.workload.document import Document, Doors, Process, Tar


def main(out: str, qemu: str, root: str, script: str, *name_server: str) -> int:
    """Run the script in a guest."""
    attached = attach(name_server=name_server[0] if name_server else None)
    data = Path(root).read_bytes()
    doors = Doors(stdin=True, signals=(15,))
    document = Document(
        root=Tar(length=len(data), sha256=hashlib.sha256(data).hexdigest()),
        process=Process(argv=("sh", "-c", script), environment=("PATH=/bin",), host=doors),
        network="none" if attached is None else "ethernet",
    )
    name = RUNTIME_NAME if attached is None else with_addition(RUNTIME_NAME, NETWORK)
    wanted = Wanted(config=Path(out, name), unprotected=True, binding=document, memory_mib=512)
    program = find_qemu(qemu)
    user, _ = choose(None)
    spec = resolve(wanted, wanted.configure(), qemu=replace(program, user=user), cbit=None)
    if attached is not None:
        spec = replace(spec, network=attached.nics)
    network = None if attached is None else attached.network
    with brought_up(spec, root=Path(root), facts=facts.gather(), note=print, accel=Accel.TCG, network=network) as (
        session,
        limit,
    ):
        if attached is not None and attached.resolver is not None:
            attached.resolver.serve(session.watch)
        return session.run(Run(doors=doors), STANDARD, limit)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
