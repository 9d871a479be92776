# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a container to its guest: document, spec, QEMU."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.files import beginning
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
from tools.launcher.oci.mounts import Folder as HostFolder
from tools.launcher.oci.translate import Translated, translate
from tools.runtime.base.log import EngineLog
from tools.runtime.config.settings import QEMU_OPTION, Protection, Settings
from tools.runtime.image.folders import folder_tar
from tools.runtime.image.store import Disk
from tools.runtime.life.folder import DOCUMENT, GUEST, Folder
from tools.runtime.life.monitor import Guest
from tools.runtime.life.serving import Workload
from tools.runtime.network.attach import attach
from tools.runtime.network.resolver import rewritten

_RESOLV, _RESOLV_MAX = "/etc/resolv.conf", 1 << 20
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
    # Here and not before: engines write what the host supplies, and make interfaces, until their hooks have run.
    content, name_server = _resolver(ordered.container)
    attached = attach(name_server=name_server)
    translated = translate(
        ordered.container,
        root=ordered.disk.verity,
        settings=settings.translation(),
        network=attached is not None,
        stdin=ordered.stdin,
    )
    document, files = translated.document, translated.files()
    for number, file in enumerate(document.files):
        if file.target == _RESOLV and name_server is not None:
            files[number] = content
    folder.write(DOCUMENT, document.data)
    private = _private(folder, settings)
    wanted = Wanted(
        config=settings.artifacts if attached is None else settings.network_artifacts,
        binding=document,
        folders=tuple(_folder(ordered, private, number, one) for number, one in enumerate(translated.folders)),
        mode=settings.mode,
        unprotected=not settings.encrypted,
        cpus=translated.vcpus,
        memory_mib=translated.memory_mib,
    )
    config = wanted.configure()
    facts = host.gather()
    spec = _spec(wanted, config, facts, settings)
    if attached is not None:
        spec = dataclasses.replace(spec, network=attached.nics)
    said = _SAID.get(settings.protection)
    for sentence in (*(() if said is None else (said,)), *spec.qemu.unconfined, *translated.notes):
        ordered.engine_log.warning(f"container {folder.name}: {sentence}")
    with brought_up(
        spec,
        root=Rootfs(path=ordered.disk.path, kind=RootKind.EROFS, length=ordered.disk.path.stat().st_size),
        facts=facts,
        note=ordered.engine_log.note,
        hostname=translated.hostname if document.host_names_it else "",
        files=files,
        network=None if attached is None else attached.network,
        accel=settings.accel,
        timeout=settings.timeout,
        base=private,
    ) as (session, limit):
        if attached is not None and attached.resolver is not None:
            attached.resolver.serve(session.watch)
        yield Guest(session=session, limit=limit, workload=_workload(translated))


def _resolver(container: Container) -> tuple[bytes, str | None]:
    """The container's resolv.conf as its guest needs it, and the name server that only a relay reaches."""
    source = next((mount.source for mount in container.mounts if mount.target == _RESOLV), None)
    if source is None:
        return b"", None
    return rewritten(beginning(Path(source), _RESOLV_MAX, regular=True))


def _folder(ordered: Ordered, private: Path, number: int, folder: HostFolder) -> Path:
    """What the guest gets of a folder of the host's: the folder itself where it may write to it, else a copy."""
    if folder.write:
        return _shared(folder.source)
    target = private / f"folder{number}.tar"
    return folder_tar(folder.source, target, limit=folder.length, note=ordered.engine_log.note).path


def _shared(source: Path) -> Path:
    """An open folder's name, which stays open as this process does: nobody puts a link in its place any more."""
    try:
        handle = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(error.strerror or "cannot be opened", where=str(source)) from None
    name = Path(f"/proc/{os.getpid()}/fd/{handle}")
    # The configuration allows the path; a link on the way, or a folder that was moved, is another.
    if name.readlink() != source:
        raise UserError("is being moved while it is mounted", where=str(source))
    return name


def _private(folder: Folder, settings: Settings) -> Path:
    """Where the guest's private folder is made: not in the container's, into which QEMU may have no way."""
    base = settings.run
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    private = base / f"guest-{hashlib.sha256(os.fsencode(folder.path)).hexdigest()[:24]}"
    # First its name, then itself: whoever deletes the container finds it, whenever this process ends.
    folder.write(GUEST, os.fsencode(private))
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o711)
    private.chmod(0o711)  # whatever the umask
    return private


def _spec(wanted: Wanted, config: RuntimeConfig, facts: host.HostFacts, settings: Settings) -> Spec:
    qemu = chosen_qemu(settings.qemu, config, option=QEMU_OPTION)
    mode = config.sev.mode
    if settings.encrypted:
        reasons = reasons_against(facts, mode, qemu, artifacts.read_firmware(config))
        if reasons:
            raise UserError(
                f"this host cannot run a container in mode {mode}",
                hint='protection = "unprotected" in /etc/sev-runtime.toml runs it without any',
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
