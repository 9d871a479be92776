# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a container to its guest: document, spec, QEMU."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.channel import requests
from tools.launcher.channel.protocol import RootKind
from tools.launcher.channel.streams import STANDARD
from tools.launcher.channel.terminal import Terminal
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.bring_up import brought_up
from tools.launcher.guest.rootfs import Rootfs
from tools.launcher.guest.spec import Spec, Wanted, reasons_against, resolve
from tools.launcher.host import facts as host
from tools.launcher.host.qemu_program import chosen_qemu
from tools.launcher.oci.container import Container
from tools.launcher.oci.translate import Translated, translate
from tools.runtime.base.log import EngineLog
from tools.runtime.config.settings import Protection, Settings
from tools.runtime.image.store import Disk
from tools.runtime.life.folder import DOCUMENT, GUEST, Folder
from tools.runtime.life.monitor import Guest
from tools.runtime.life.serving import Workload

_SAID = {
    Protection.UNPROTECTED: "UNPROTECTED, NOT ENCRYPTED: this host can read and change all of it, and run anything",
    Protection.ENFORCE: "NOT ENCRYPTED: this host can read and change all of it; its workload document is enforced",
}


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """A container that is to be started, and what is known of it before its guest boots; `stdin`: is there one?"""

    container: Container
    settings: Settings
    disk: Disk
    stdin: bool
    folder: Folder
    engine_log: EngineLog


@contextmanager
def booted(ordered: Ordered) -> Iterator[Guest]:
    """The guest; a terminal that it is shown on is this process's standard input and output."""
    settings, folder = ordered.settings, ordered.folder
    # Here and not before: engines write what the host supplies until their hooks have run.
    translated = translate(
        ordered.container,
        root=ordered.disk.verity,
        settings=settings.oci,
        network=False,
        stdin=ordered.stdin,
    )
    document = translated.document
    folder.write(DOCUMENT, document.data)
    wanted = Wanted(
        config=settings.artifacts,
        binding=document,
        mode=settings.mode,
        unprotected=not settings.encrypted,
        cpus=translated.vcpus,
        memory_mib=translated.memory_mib,
    )
    config = wanted.configure()
    facts = host.gather()
    spec = _spec(wanted, config, facts, settings)
    said = _SAID.get(settings.protection)
    for sentence in (*(() if said is None else (said,)), *spec.qemu.unconfined, *translated.notes):
        ordered.engine_log.warning(f"container {folder.name}: {sentence}")
    with brought_up(
        spec,
        root=Rootfs(path=ordered.disk.path, kind=RootKind.EROFS, length=ordered.disk.path.stat().st_size),
        facts=facts,
        note=ordered.engine_log.note,
        hostname=translated.hostname if document.host_names_it else "",
        files=translated.files(),
        accel=settings.accel,
        timeout=settings.timeout,
        base=_private(folder, settings),
    ) as (session, limit):
        yield Guest(session=session, limit=limit, workload=_workload(translated))


def _private(folder: Folder, settings: Settings) -> Path:
    """Where the guest's private folder is made: not in the container's, into which QEMU may have no way."""
    base = settings.run
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix="guest-", dir=base))
    private.chmod(0o711)
    folder.write(GUEST, os.fsencode(private))
    return private


def _spec(wanted: Wanted, config: RuntimeConfig, facts: host.HostFacts, settings: Settings) -> Spec:
    qemu = chosen_qemu(settings.qemu, config)
    mode = config.sev.mode
    if settings.encrypted:
        reasons = reasons_against(facts, mode, qemu, artifacts.read_firmware(config))
        if reasons:
            raise UserError(
                f"this host cannot run a container in mode {mode}",
                hint='protection = "unprotected" in sev-runtime.toml runs it without any',
                details=tuple(reasons),
            )
    cbit = facts.encryption.cbit if facts.encryption is not None else None
    return resolve(wanted, config, qemu=qemu, cbit=cbit)


def _workload(translated: Translated) -> Workload:
    process = translated.document.process
    return Workload(
        what=requests.Run(doors=process.host, env=translated.environment, size=(0, 0) if process.terminal else None),
        argv=process.argv,
        streams=STANDARD,
        terminal=Terminal(0, keys=True) if process.terminal else None,
        entries=translated.document.exec,
    )
