# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a spec to a guest whose agent has spoken, with all that lies on this host for it.

QEMU belongs to the process that is in the block, and dies with it. That is the caller's:

    with brought_up(spec, …) as (session, limit):
        status = session.run(process, STANDARD, limit)

or a monitor that survives the caller (tools/runtime/life/monitor.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.launcher.channel.link import Bound, Container
from tools.launcher.channel.network import Network
from tools.launcher.channel.session import Session
from tools.launcher.channel.streams import Signals
from tools.launcher.guest import accelerators, rootfs
from tools.launcher.guest.binding import Unbound
from tools.launcher.guest.rootfs import Note, Rootfs
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import Staging
from tools.launcher.host.facts import HostFacts


@contextmanager
def brought_up(
    spec: Spec,
    *,
    root: Path | Rootfs,
    facts: HostFacts,
    note: Note,
    hostname: str = "",
    files: Mapping[int, bytes] | None = None,
    network: Network | None = None,
    accel: Accel | None = None,
    timeout: float | None = None,
    console: Path | None = None,
    rootfs_limit_mib: int | None = None,
    base: Path | None = None,
) -> Iterator[tuple[Session, float]]:
    """The session, and the seconds that the guest has for its root file system; at the end nothing is left.

    `root` may have been prepared before. `files`: what a workload document lets the host supply, by their numbers in
    it; `hostname` too must be open to the host there. `network`: what the guest's interfaces, those of `spec`, are
    called and which addresses and routes they have; exactly where a document has a network. `timeout` in seconds,
    None: by the accelerator; `accel` None: whichever works. `rootfs_limit_mib`: of what is packed, piped or
    decompressed here, None: as much as the guest's RAM. `base` is where the guest's private folder is made. A signal
    that comes before the guest runs raises Interrupted.
    """
    with Signals() as signals, RunDir(base) as folder:
        image = root
        if isinstance(image, Path):
            memory = spec.config.machine.memory_mib
            image = rootfs.prepare(image, into=folder.path, memory_mib=memory, note=note, limit_mib=rootfs_limit_mib)
        staging = Staging(spec, folder.path, rootfs=image, console=console)
        name = hostname.encode("ascii")
        container: Bound | Container
        if isinstance(spec.binding, Unbound):
            container = Container(root_kind=image.kind, root_length=image.length, hostname=name, verity=spec.verity)
        else:
            container = Bound(
                document=spec.binding.data,
                hostname=name,
                files=files or {},
                network=network,
                verity=spec.verity,
                commands=spec.binding.host_exec,
            )
        with accelerators.started(
            staging, accel=accel, facts=facts, container=container, signals=signals, timeout=timeout, note=note
        ) as result:
            yield result
