# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a spec to a guest whose agent has spoken, with all that lies on this host for it.

QEMU belongs to the process that is in the block, and dies with it. That is the caller's:

    with brought_up(spec, …) as (session, limit):
        status = session.run(process, STANDARD, limit)

or a monitor that survives the caller: monitor.create(folder, partial(brought_up, spec, …), process).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.launcher.channel.link import Container
from tools.launcher.channel.session import Session
from tools.launcher.channel.streams import Signals
from tools.launcher.guest import accelerators, rootfs
from tools.launcher.guest.rootfs import Note
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import Staging
from tools.launcher.host.facts import HostFacts


@contextmanager
def brought_up(
    spec: Spec,
    *,
    root: Path,
    facts: HostFacts,
    note: Note,
    hostname: str = "",
    accel: Accel | None = None,
    timeout: float | None = None,
    console: Path | None = None,
    rootfs_limit_mib: int | None = None,
) -> Iterator[tuple[Session, float]]:
    """The session, and the seconds that the guest has for its root file system; at the end nothing is left.

    `timeout` in seconds, None: by the accelerator; `accel` None: whichever works. `rootfs_limit_mib`: of what is
    packed, piped or decompressed here, None: as much as the guest's RAM. A signal that comes before the
    guest runs raises Interrupted.
    """
    with Signals() as signals, RunDir() as folder:
        memory = spec.config.machine.memory_mib
        image = rootfs.prepare(root, into=folder.path, memory_mib=memory, note=note, limit_mib=rootfs_limit_mib)
        staging = Staging(spec, folder.path, rootfs=image, console=console)
        container = Container(
            root_kind=image.kind, root_length=image.length, hostname=hostname.encode("ascii"), verity=spec.verity
        )
        with accelerators.started(
            staging, accel=accel, facts=facts, container=container, signals=signals, timeout=timeout, note=note
        ) as result:
            yield result
