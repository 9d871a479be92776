# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guests that are started, and how those end that must not start.

A refusal of the firmware's is a loop without an end and without a word. A guest that is merely slow looks the same to a
clock, so it is told by the processor's time: the same guest unchanged took so much to its agent's first word, in the
same run, and this one has had several times as much.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.acceptance.model import End, Guest, Start
from tools.launcher.acceptance.signer import Signer
from tools.launcher.base.errors import Interrupted, LauncherError
from tools.launcher.channel.link import Bound, Stage
from tools.launcher.channel.session import NoHelloError, Session
from tools.launcher.channel.streams import Signals
from tools.launcher.config.owner import Owner, SignedIdBlock, Wish
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.accelerators import TIMEOUTS
from tools.launcher.guest.rootfs import Note, Rootfs
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel, Spec, Wanted, resolve
from tools.launcher.guest.staging import Staging
from tools.launcher.guest.start import Change, launched
from tools.launcher.host.facts import HostFacts
from tools.launcher.host.qemu_program import QemuProgram
from tools.launcher.measure import digest_file
from tools.launcher.measure.cpu_signature import signature_of
from tools.sev.modes import Mode
from tools.sev.workload.document import Document, Tar

TIMES = 2.5
"""So many times the processor's time of an honest start make a guest that will not speak any more."""
_PERIOD = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
Prepare = Callable[[Staging], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every start takes. `accel` is that of unprotected guests; `timeout` in seconds, None: by the accelerator.

    `root` is the probe's, `tar` what a document says of it. `wish`: what the owner of SEV and SEV-ES guests gave,
    `tik` with it.
    """

    config: RuntimeConfig
    qemu: QemuProgram
    facts: HostFacts
    accel: Accel
    timeout: float | None
    signals: Signals
    folder: Path
    root: Rootfs
    tar: Tar
    signer: Signer
    note: Note
    wish: Wish = dataclasses.field(default_factory=Wish)
    tik: bytes | None = None

    def on(self, accel: Accel) -> "Bench":
        """The same with another accelerator of unprotected guests."""
        return dataclasses.replace(self, accel=accel)

    def accelerator(self, guest: Guest) -> Accel:
        """Who executes it."""
        return self.accel if guest is Guest.PLAIN else Accel.KVM

    def limit(self, guest: Guest) -> float:
        """Seconds for a step of a guest."""
        return self.timeout or TIMEOUTS[self.accelerator(guest)]

    def configured(self, guest: Guest, *, memory_mib: int | None = None) -> RuntimeConfig:
        """The config for that guest."""
        config = self.config
        if guest.mode is not None:
            config = dataclasses.replace(config, sev=dataclasses.replace(config.sev, mode=guest.mode))
        if memory_mib is not None:
            config = dataclasses.replace(config, machine=dataclasses.replace(config.machine, memory_mib=memory_mib))
        return config

    def spec(
        self, guest: Guest, document: Document, *, append: str = "", memory_mib: int | None = None, sign: bool = False
    ) -> Spec:
        """A guest that is bound to the document. `sign`: with an ID block for it, through the launcher's own checks."""
        config = self.configured(guest, memory_mib=memory_mib)
        wanted = Wanted(
            config=config.path, binding=document, mode=guest.mode, unprotected=guest is Guest.PLAIN, append=append,
            owner=self.wish if guest in (Guest.SEV, Guest.SEV_ES) else Wish(),
        )  # fmt: skip
        encryption = self.facts.encryption
        cbit = None if encryption is None else encryption.cbit
        spec = resolve(wanted, config, qemu=self.qemu, cbit=cbit)
        if not sign:
            return spec
        policy = config.sev.snp_policy
        signed = self.signer.id_block(digest=digest_of(spec, Mode.SNP), policy=policy)
        files = Wish(id_block=self.folder / "id-block", id_auth=self.folder / "id-auth")
        assert files.id_block is not None
        assert files.id_auth is not None
        files.id_block.write_bytes(signed.block)
        files.id_auth.write_bytes(signed.auth)
        return resolve(dataclasses.replace(wanted, owner=files), config, qemu=self.qemu, cbit=cbit)


def signed_as(spec: Spec, signed: SignedIdBlock) -> Spec:
    """With this ID block, whatever it is for: a host does not ask its launcher."""
    return dataclasses.replace(spec, owner=Owner(id_block=signed))


def digest_of(spec: Spec, mode: Mode) -> bytes:
    """The launch digest of the guest in the mode, computed."""
    config = spec.config
    own = digest_file.launch_digests(config, cmdline=spec.cmdline)
    text = own.digest(
        mode,
        signature=signature_of(config.machine.cpu),
        vcpus=config.machine.vcpus,
        legacy_vm_type=config.sev.legacy_vm_type,
    )
    return bytes.fromhex(text)


@contextmanager
def running(
    bench: Bench, guest: Guest, spec: Spec, *, prepare: Sequence[Prepare] = (), change: Change = lambda same: same
) -> Iterator[Session]:
    """A started QEMU, of which nothing is left behind the block. `prepare` changes what is staged, `change` options."""
    assert isinstance(spec.binding, Document)
    container = Bound(document=spec.binding.data, commands=spec.binding.host_exec)
    try:
        with RunDir() as folder:
            staging = Staging(spec, folder.path, rootfs=bench.root)
            for each in prepare:
                each(staging)
            accel = bench.accelerator(guest)
            with launched(
                staging, accel=accel, container=container, signals=bench.signals, change=change
            ) as session:  # fmt: skip
                yield session
    finally:
        bench.signals.early = True


def wait(session: Session, *, limit: float, enough: float | None = None) -> Start:
    """Until the agent speaks, `limit` seconds, or `enough` seconds of the processor's."""
    begun = time.monotonic()
    pid = session.machine.pid
    used = 0.0
    try:
        while True:
            left = limit - (time.monotonic() - begun)
            if session.serve(lambda: session.link.stage >= Stage.GREETED, timeout=max(0.0, min(_PERIOD, left))):
                return Start(hello=time.monotonic() - begun, processor=processor_time(pid))
            used = processor_time(pid)
            if enough is not None and used > enough:
                return Start(end=End.LOOPS, processor=used, said=session.machine.said)
            if left <= 0:
                return Start(end=End.SILENT, processor=used, said=session.machine.said)
    except NoHelloError as error:
        return Start(end=End.ENDED, processor=used, said=error.details or session.machine.said, how=str(error))


def outcome(
    bench: Bench,
    guest: Guest,
    spec: Spec,
    *,
    prepare: Sequence[Prepare] = (),
    change: Change = lambda same: same,
    enough: float | None = None,
) -> Start:
    """How a start ends; it is ended at its first word."""
    try:
        with running(bench, guest, spec, prepare=prepare, change=change) as session:
            return wait(session, limit=bench.limit(guest), enough=enough)
    except Interrupted:
        raise
    except LauncherError as error:
        return Start(trouble=str(error), said=error.details)


def processor_time(pid: int) -> float:
    """Seconds of the processor's that the process and those below it have had; 0 for one that is gone."""
    ticks, waiting = 0, [pid]
    while waiting:
        number = waiting.pop()
        try:
            # The name stands in parentheses and may hold anything; utime and stime are the 14th and 15th field.
            fields = Path(f"/proc/{number}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for task in sorted(Path(f"/proc/{number}/task").iterdir()):
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return ticks / _TICKS
