# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From options to a plan, from a plan to a booted guest."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import GuestError, UserError
from tools.launcher.base.ui import UNPROTECTED, Ui
from tools.launcher.channel.link import Link, Request
from tools.launcher.channel.protocol import Process, RootKind
from tools.launcher.channel.session import NoHelloError, Session, listen
from tools.launcher.channel.streams import Signals
from tools.launcher.cli.options import Options
from tools.launcher.config import artifacts
from tools.launcher.config import kernel_cmdline as cmdline
from tools.launcher.config.owner import NOTHING, Owner, b64
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.guest import command_line, rootfs
from tools.launcher.guest.command_line import Accel, Files, Plan, QemuProgram
from tools.launcher.guest.qemu import Qemu, tail
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.host import kvm_trial
from tools.launcher.host.facts import HostFacts, obstacles, require_version
from tools.sev.footer import Footer
from tools.sev.hashes_table import hashes_table
from tools.sev.modes import Console, Mode, ProfileKind

# How long to wait for the agent, in seconds. Emulation on a busy machine is slow; a trial of KVM that hangs
# is paid once a boot of the host.
TIMEOUTS = {Accel.KVM: 120.0, Accel.TCG: 300.0}
KVM_TRIAL = 20.0
_SOCKET = "agent.sock"
_PRINTS_IT = "`sev-launch digest` with the same options prints it"
_CONSOLE, _FIRMWARE_LOG, _HASHES, _ROOTFS = "console.log", "firmware.log", "hashes.bin", "rootfs.img"
_DH_CERT, _SESSION = "dh-cert.b64", "session.b64"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What will be started, before an accelerator is chosen. `protection` None: unprotected."""

    config: RuntimeConfig
    qemu: QemuProgram
    firmware: Footer
    protection: Mode | None
    cbit: int | None
    cmdline: str
    owner: Owner = NOTHING


def configure(options: Options) -> RuntimeConfig:
    """The config with the options laid over it."""
    config = load_config(options.config)
    machine = config.machine
    if options.cpus is not None:
        machine = dataclasses.replace(machine, vcpus=options.cpus)
    if options.memory_mib is not None:
        machine = dataclasses.replace(machine, memory_mib=options.memory_mib)
    sev = config.sev if options.mode is None else dataclasses.replace(config.sev, mode=options.mode)
    return dataclasses.replace(config, machine=machine, sev=sev)


def kernel_cmdline(config: RuntimeConfig, options: Options, ui: Ui) -> str:
    """The command line that is launched; says so when it is not the config's."""
    text = cmdline.compose(config, append=options.append, verity=options.verity, rootfs=options.rootfs)
    if text != config.cmdline:
        ui.note(f"the kernel command line differs from the config's: the launch digest changes by it; {_PRINTS_IT}")
    return text


def note_digest(config: RuntimeConfig, options: Options, ui: Ui) -> None:
    """Say which other options move the launch digest of a protected guest."""
    if options.unprotected:
        return
    if options.mode is not None:
        ui.note(f"--mode {options.mode}: the launch digest is that of this mode; {_PRINTS_IT}")
    if options.cpus is not None and config.sev.mode is not Mode.SEV:
        count = "1 vCPU" if options.cpus == 1 else f"{options.cpus} vCPUs"
        ui.note(f"--cpus {options.cpus}: the launch digest is that of {count}; {_PRINTS_IT}")


def announce(config: RuntimeConfig, options: Options, ui: Ui) -> None:
    """Say what every start must say: no protection, or a digest that options have moved."""
    if options.unprotected:
        ui.alarm(UNPROTECTED)
        return
    note_digest(config, options, ui)
    if config.profile is ProfileKind.DEBUG:
        ui.warn("debug profile: the guest writes its kernel log where this host reads it")


def check_protection(facts: HostFacts, mode: Mode, qemu: QemuProgram | None, firmware: Footer) -> list[str]:
    """Everything that stands against a protected guest here, as reasons for people."""
    reasons = obstacles(facts, mode)
    if qemu is not None:
        try:
            require_version(qemu, mode)
        except UserError as error:
            reasons.append(str(error))
    if mode is Mode.SNP and firmware.snp_missing:
        reasons.append(f"the firmware's SEV metadata lacks {', '.join(firmware.snp_missing)}")
    if mode is Mode.SEV_ES and firmware.sev_es_reset is None:
        reasons.append("the firmware has no SEV-ES reset block")
    return reasons


def build_hashes(guest: Guest) -> bytes:
    """The hashes table of this guest's artifacts and command line."""
    config = guest.config
    initrd = None if config.initramfs is None else bytes.fromhex(config.initramfs.sha256)
    kernel = bytes.fromhex(config.kernel.sha256)
    return hashes_table(kernel_sha256=kernel, initrd_sha256=initrd, cmdline=guest.cmdline)


def plan_for(guest: Guest, *, accel: Accel, files: Files) -> Plan:
    """The plan that command_line.build turns into QEMU's options."""
    return Plan(
        config=guest.config,
        qemu=guest.qemu,
        files=files,
        accel=accel,
        cmdline=guest.cmdline,
        protection=guest.protection,
        cbit=guest.cbit,
        hashes_addr=guest.firmware.hashes.base if guest.protection is None else None,
        owner=guest.owner,
    )


class Staging:
    """A guest's private folder, filled: verified copies, hashes table, disk image."""

    def __init__(self, guest: Guest, folder: Path, *, console_log: Path | None = None) -> None:
        self.guest = guest
        self.folder = folder
        config = guest.config
        for artifact in config.artifacts:
            artifacts.verify(config, artifact, into=folder)
        serial = config.devices.console is Console.SERIAL
        self.console_log = None if not serial else console_log or folder / _CONSOLE
        self.files = Files(
            kernel=config.kernel.file,
            initramfs=None if config.initramfs is None else config.initramfs.file,
            firmware=config.firmware.file,
            agent_socket=_SOCKET,
            console_log=None if self.console_log is None else str(self.console_log),
            firmware_log=_FIRMWARE_LOG if serial else None,
            hashes=_HASHES if guest.protection is None else None,
            dh_cert=self._stage(_DH_CERT, guest.owner.dh_cert),
            session=self._stage(_SESSION, guest.owner.session),
        )
        if guest.protection is None:
            (folder / _HASHES).write_bytes(build_hashes(guest))

    def _stage(self, name: str, data: bytes | None) -> str | None:
        """What was checked, as the base64 file that QEMU reads."""
        if data is None:
            return None
        (self.folder / name).write_text(b64(data))
        return name

    def add_rootfs(self, image: rootfs.Rootfs) -> None:
        """Give the guest its disk. A link with a plain name: no path of the user's needs quoting for QEMU."""
        (self.folder / _ROOTFS).symlink_to(image.path)
        self.files = dataclasses.replace(self.files, rootfs=_ROOTFS)

    def logs(self) -> tuple[str, ...]:
        """The end of the guest's console and of the firmware's messages, where there are any."""
        lines: tuple[str, ...] = ()
        for name, path in (("firmware", self.folder / _FIRMWARE_LOG), ("console", self.console_log)):
            if path is not None:
                try:
                    with path.open("rb") as stream:
                        stream.seek(max(0, path.stat().st_size - (16 << 10)))
                        lines += tuple(f"{name}: {line}" for line in tail(stream.read(16 << 10)))
                except OSError:
                    continue
        return lines

    @contextmanager
    def booted(self, *, accel: Accel, request: Request, signals: Signals, timeout: float) -> Iterator[Session]:
        """Start QEMU and wait for the agent; at the end of the block nothing of it is left."""
        plan = plan_for(self.guest, accel=accel, files=self.files)
        (self.folder / _SOCKET).unlink(missing_ok=True)
        listener = listen(self.folder, _SOCKET)
        try:
            link = Link(request)
            qemu = Qemu(command_line.argv(command_line.build(plan)), cwd=self.folder)
            session = Session(link=link, qemu=qemu, listener=listener, signals=signals)
            try:
                session.wait_hello(timeout)
                self._check_profile(link)
                yield session
            except GuestError as error:
                qemu.stop()
                error.details += self.logs()
                raise
            finally:
                qemu.stop()
                session.close()
        finally:
            listener.close()

    def _check_profile(self, link: Link) -> None:
        assert link.hello is not None
        debug = self.guest.config.profile is ProfileKind.DEBUG
        if link.hello.debug != debug:
            said = "debug" if link.hello.debug else "production"
            raise GuestError(f"the agent says that it runs as {said}, the config says {self.guest.config.profile}")


def request_for(options: Options, image: rootfs.Rootfs) -> Request:
    """What the agent is asked for."""
    process = Process(
        argv=[os.fsencode(word) for word in options.argv],
        env=[os.fsencode(entry) for entry in options.env],
        cwd=os.fsencode(options.workdir),
        uid=options.uid,
        gid=options.gid,
    )
    return Request(
        root_kind=image.kind,
        root_length=image.length,
        process=process,
        hostname=options.hostname.encode("ascii"),
    )


def probe_request() -> Request:
    """A request for a guest that only has to say HELLO."""
    return Request(root_kind=RootKind.TAR, root_length=0, process=Process(argv=[b"/probe"]))


def run_workload(staging: Staging, *, options: Options, facts: HostFacts, request: Request, ui: Ui) -> int:
    """Boot, relay, return the workload's status."""
    with Signals() as signals:
        if staging.guest.protection is not None:
            return _attempt(staging, Accel.KVM, options, request, signals)
        accel, trial = choose_accel(staging.guest, options=options, facts=facts, ui=ui)
        if not trial:
            return _attempt(staging, accel, options, request, signals)
        return _with_fallback(staging, options, request, signals, ui)


def _attempt(staging: Staging, accel: Accel, options: Options, request: Request, signals: Signals) -> int:
    timeout = options.timeout or TIMEOUTS[accel]
    with staging.booted(accel=accel, request=request, signals=signals, timeout=timeout) as session:
        return _relay(session, options, timeout)


def _relay(session: Session, options: Options, timeout: float) -> int:
    return session.run(timeout, verity=options.verity is not None)


def _with_fallback(staging: Staging, options: Options, request: Request, signals: Signals, ui: Ui) -> int:
    """KVM if the agent speaks under it; otherwise emulation. The trial is the start itself."""
    guest = staging.guest
    trial = min(KVM_TRIAL, options.timeout or KVM_TRIAL)
    started = False
    try:
        with staging.booted(accel=Accel.KVM, request=request, signals=signals, timeout=trial) as session:
            started = True
            kvm_trial.remember(guest.qemu, guest.config, works=True)
            return _relay(session, options, options.timeout or TIMEOUTS[Accel.KVM])
    except NoHelloError as error:
        if started:
            raise
        ui.note(f"no guest runs on this KVM ({error}): emulating instead, which is slow")
    timeout = options.timeout or TIMEOUTS[Accel.TCG]
    with staging.booted(accel=Accel.TCG, request=request, signals=signals, timeout=timeout) as session:
        # Only now is it known that KVM was at fault and not the artifacts.
        kvm_trial.remember(guest.qemu, guest.config, works=False)
        return _relay(session, options, timeout)


def choose_accel(guest: Guest, *, options: Options, facts: HostFacts, ui: Ui) -> tuple[Accel, bool]:
    """For an unprotected guest: the accelerator, and whether KVM still has to prove itself."""
    if options.accel is Accel.TCG:
        return Accel.TCG, False
    if facts.kvm_error is not None:
        if options.accel is Accel.KVM:
            raise UserError(facts.kvm_error, where="/dev/kvm", hint="--accel tcg emulates")
        ui.note(f"no KVM here (/dev/kvm: {facts.kvm_error}): emulating, which is slow")
        return Accel.TCG, False
    if options.accel is Accel.KVM:
        return Accel.KVM, False
    verdict = kvm_trial.recall(guest.qemu, guest.config)
    if verdict is None:
        limit = min(KVM_TRIAL, options.timeout or KVM_TRIAL)
        ui.note(f"trying KVM, for up to {limit:g} s; the result is remembered")
    elif not verdict:
        ui.note("no guest ran on this KVM before: emulating, which is slow (doctor --retry tries again)")
        return Accel.TCG, False
    return Accel.KVM, True


def prepare_rootfs(options: Options, folder: RunDir, ui: Ui) -> rootfs.Rootfs:
    """The disk image for --rootfs; with --verity only EROFS will do."""
    assert options.rootfs is not None
    return rootfs.prepare(options.rootfs, into=folder.path, note=ui.note)
