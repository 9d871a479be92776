# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch doctor`: what this host can do, line by line."""

import json
import os
import sys
import time
from dataclasses import dataclass, field

from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.base.ui import Ui, write_stdout
from tools.launcher.channel.streams import Signals
from tools.launcher.cli.options import Options
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.command_line import NAMED_KERNEL_SINCE, SEV_SINCE, Accel, QemuProgram
from tools.launcher.guest.launch import (
    KVM_TRIAL,
    TIMEOUTS,
    Guest,
    Staging,
    check_protection,
    configure,
    probe_request,
)
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.host import kvm_trial
from tools.launcher.host.facts import HostFacts, find_qemu, gather, obstacles, version_text
from tools.sev.footer import Footer
from tools.sev.modes import Mode


@dataclass(kw_only=True)
class _Report:
    """Lines in order: name, ok (None: for information), detail."""

    lines: list[tuple[str, bool | None, str]] = field(default_factory=list)

    def add(self, name: str, ok: bool | None, detail: str) -> None:
        self.lines.append((name, ok, detail))


def doctor(options: Options, ui: Ui) -> int:
    """Print the report; 0 when the mode asked for can run here, else 1."""
    report = _Report()
    config = _config(options, report)
    firmware = _artifacts(config, report)
    qemu = _qemu(options, report)
    facts = gather()
    _host(facts, report)
    reasons = []
    if config is None or firmware is None:
        reasons.append("the artifacts are not in order")
    if qemu is None:
        reasons.append("there is no QEMU")
    ready = None if config is None or firmware is None or qemu is None else (config, firmware, qemu)
    if options.unprotected:
        if ready is not None and not _unprotected(*ready, facts=facts, options=options, report=report, ui=ui):
            reasons.append("no guest came up")
    else:
        if ready is not None:
            _kvm_guest(*ready, facts=facts, options=options, report=report, ui=ui)
        mode = config.sev.mode if config is not None else options.mode or Mode.SNP
        reasons += obstacles(facts, mode) if firmware is None else check_protection(facts, mode, qemu, firmware)
    what = "unprotected" if options.unprotected else f"mode {config.sev.mode if config else options.mode or 'snp'}"
    report.add("verdict", not reasons, f"{what}: {'; '.join(reasons) if reasons else 'a guest can run here'}")
    _print(report, as_json=options.json, what=what, reasons=reasons)
    return 1 if reasons else 0


def _config(options: Options, report: _Report) -> RuntimeConfig | None:
    try:
        config = configure(options)
    except UserError as error:
        report.add("config", False, str(error))
        return None
    report.add("config", True, f"{config.path}: {config.profile} {config.version}, mode {config.sev.mode}")
    return config


def _artifacts(config: RuntimeConfig | None, report: _Report) -> Footer | None:
    if config is None:
        return None
    good = True
    for artifact in config.artifacts:
        try:
            artifacts.verify(config, artifact)
        except UserError as error:
            report.add(artifact.role, False, str(error))
            good = False
        else:
            report.add(artifact.role, True, f"{artifact.file}, {artifact.size} bytes, SHA-256 as in the config")
    try:
        firmware = artifacts.read_firmware(config)
    except UserError as error:
        if good:
            report.add("firmware metadata", False, str(error))
        return None
    missing = firmware.snp_missing
    sections = ", ".join(sorted({section.name for section in firmware.sections})) or "none"
    detail = f"hashes table at {firmware.hashes.base:#x}, sections {sections}"
    report.add("firmware metadata", not missing, detail + (f"; lacks {', '.join(missing)}" if missing else ""))
    return firmware if good else None


def _qemu(options: Options, report: _Report) -> QemuProgram | None:
    try:
        qemu = find_qemu(options.qemu)
    except UserError as error:
        report.add("QEMU", False, str(error))
        return None
    uses = []
    if qemu.version < SEV_SINCE:
        uses.append(f"protected guests take {version_text(SEV_SINCE)}")
    if qemu.version < NAMED_KERNEL_SINCE:
        uses.append("serves an edited kernel, so unprotected guests get it as a named blob")
    if not qemu.sandbox:
        uses.append("its seccomp sandbox does not work here, so it is left out")
    report.add("QEMU", True, "; ".join([f"{version_text(qemu.version)} at {qemu.path}", *uses]))
    return qemu


def _host(facts: HostFacts, report: _Report) -> None:
    report.add("/dev/kvm", facts.kvm_error is None, facts.kvm_error or "can be opened")
    report.add("/dev/sev", facts.sev_error is None, facts.sev_error or "can be opened")
    encryption = facts.encryption
    if encryption is None:
        report.add("CPU", False, "no memory encryption (CPUID 0x8000001F)")
    elif not encryption.sev:
        report.add("CPU", False, "no SEV (CPUID 0x8000001F EAX)")
    else:
        levels = {"SEV": encryption.sev, "SEV-ES": encryption.sev_es, "SEV-SNP": encryption.snp}
        have = ", ".join(name for name, there in levels.items() if there)
        report.add(
            "CPU",
            encryption.cbit > 0,
            f"{have}; C-bit {encryption.cbit}, address bits lost {encryption.reduced_phys_bits}",
        )
    for name in ("sev", "sev_es", "sev_snp"):
        value = facts.parameters.get(name)
        report.add(f"kvm_amd.{name}", facts.enabled(name), value or "no such parameter")
    swap = facts.parameters.get("debug_swap")
    if facts.enabled("debug_swap"):
        report.add(
            "kvm_amd.debug_swap",
            None,
            # Since 6.10 the features are those that QEMU asks for (sev_guest_init(), KVM_SEV_INIT2).
            f"{swap}: before Linux 6.10 it sets bit 5 of the VMSA's features and so moves the launch digest",
        )
    else:
        report.add("kvm_amd.debug_swap", None, swap or "no such parameter")


def _unprotected(
    config: RuntimeConfig,
    firmware: Footer,
    qemu: QemuProgram,
    *,
    facts: HostFacts,
    options: Options,
    report: _Report,
    ui: Ui,
) -> bool:
    """Whether an unprotected guest comes up, under KVM or emulated."""
    kvm = False
    if options.accel is not Accel.TCG:
        kvm = _kvm_guest(config, firmware, qemu, facts=facts, options=options, report=report, ui=ui)
    if kvm or options.accel is Accel.KVM:
        return kvm
    seconds, error = _boot(
        config, firmware, qemu, accel=Accel.TCG, timeout=options.timeout or TIMEOUTS[Accel.TCG], ui=ui
    )
    report.add("guest on TCG", error is None, error or f"reached its agent in {seconds:.1f} s")
    if error is None and facts.kvm_error is None and options.accel is None:
        kvm_trial.remember(qemu, config, works=False)
    return error is None


def _kvm_guest(
    config: RuntimeConfig,
    firmware: Footer,
    qemu: QemuProgram,
    *,
    facts: HostFacts,
    options: Options,
    report: _Report,
    ui: Ui,
) -> bool:
    """Whether a plain guest really runs on KVM: by a verdict of this boot, or by trying."""
    name = "guest on KVM"
    if facts.kvm_error is not None:
        report.add(name, False, "not tried: /dev/kvm cannot be opened")
        return False
    verdict = None if options.retry else kvm_trial.recall(qemu, config)
    if verdict is not None:
        detail = "reached its agent" if verdict else "did not reach its agent"
        report.add(name, verdict, f"{detail} earlier since this host booted (--retry tries again)")
        return verdict
    seconds, error = _boot(
        config, firmware, qemu, accel=Accel.KVM, timeout=min(KVM_TRIAL, options.timeout or KVM_TRIAL), ui=ui
    )
    report.add(name, error is None, error or f"reached its agent in {seconds:.1f} s")
    if error is None:
        kvm_trial.remember(qemu, config, works=True)
    return error is None


def _boot(
    config: RuntimeConfig, firmware: Footer, qemu: QemuProgram, *, accel: Accel, timeout: float, ui: Ui
) -> tuple[float, str | None]:
    """Start the real artifacts, unprotected, up to the agent's first word: seconds, and what went wrong."""
    ui.note(f"starting a guest on {accel.upper()}, for up to {timeout:g} s")
    guest = Guest(config=config, qemu=qemu, firmware=firmware, protection=None, cbit=None, cmdline=config.cmdline)
    begun = time.monotonic()
    try:
        with RunDir() as folder, Signals() as signals:
            staging = Staging(guest, folder.path)
            with staging.booted(accel=accel, request=probe_request(), signals=signals, timeout=timeout):
                return time.monotonic() - begun, None
    except LauncherError as error:
        if error.exit_status > 128:  # a signal to us is no verdict on the host
            raise
        details = getattr(error, "details", ())
        return 0.0, f"{error}{f' ({details[-1]})' if details else ''}"


def _print(report: _Report, *, as_json: bool, what: str, reasons: list[str]) -> None:
    if as_json:
        document = {
            "schema": 1,
            "asked": what,
            "can_run": not reasons,
            "reasons": reasons,
            "checks": [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in report.lines],
        }
        write_stdout(json.dumps(document, indent=2) + "\n")
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = max(len(name) for name, _, _ in report.lines)
    marks = {True: ("ok", "\x1b[32m"), False: ("no", "\x1b[31m"), None: ("--", "\x1b[2m")}
    for name, ok, detail in report.lines:
        mark, style = marks[ok]
        shown = f"{style}{mark}\x1b[0m" if colour else mark
        write_stdout(f"{shown}  {name:<{width}}  {detail}\n")
