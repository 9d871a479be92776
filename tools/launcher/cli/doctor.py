# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch doctor`: what this host can do, line by line."""

import sys
import time
from dataclasses import dataclass, field

from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.base.ui import Ui, colour_wanted, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.channel.link import Container
from tools.launcher.channel.protocol import RootKind
from tools.launcher.channel.streams import Signals
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.accelerators import TIMEOUTS, trial_time
from tools.launcher.guest.binding import UNBOUND, compose
from tools.launcher.guest.command_line import NAMED_KERNEL_SINCE
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel, Spec, Wanted, reasons_against
from tools.launcher.guest.staging import Staging
from tools.launcher.guest.start import booted
from tools.launcher.host import facts as host
from tools.launcher.host import kvm_trial
from tools.launcher.host.facts import HostFacts, obstacles
from tools.launcher.host.qemu_program import SEV_SINCE, QemuProgram, version_text
from tools.launcher.options import guest_options
from tools.launcher.options.arguments import JSON
from tools.launcher.options.guest_options import HOST
from tools.launcher.options.parser import Group, Option, Syntax
from tools.sev.footer import Footer
from tools.sev.modes import Mode

SYNTAX = Syntax(
    HOST,
    Group("output", JSON, Option("--retry", text="start a guest again although the result is known")),
)


@dataclass(kw_only=True)
class _Report:
    """Lines in order: name, ok (None: for information), detail."""

    lines: list[tuple[str, bool | None, str]] = field(default_factory=list)

    def add(self, name: str, ok: bool | None, detail: str) -> None:
        self.lines.append((name, ok, detail))


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What starting a guest takes. `timeout` in seconds, None: by the accelerator."""

    config: RuntimeConfig
    firmware: Footer
    qemu: QemuProgram
    facts: HostFacts
    accel: Accel | None
    timeout: float | None
    retry: bool
    ui: Ui


def run(values: Values, ui: Ui) -> int:
    """Print the report; 0 when the mode asked for can run here, else 1."""
    asked = guest_options.wanted(values)
    report = _Report()
    config = _config(asked, report)
    firmware = _artifacts(config, report)
    qemu = _qemu(values, config, report)
    facts = host.gather()
    _host(facts, report)
    reasons = []
    if config is None or firmware is None:
        reasons.append("the artifacts are not in order")
    if qemu is None:
        reasons.append("there is no QEMU")
    elif values.confined:
        reasons += qemu.unconfined
    trial = None
    if config is not None and firmware is not None and qemu is not None:
        trial = _Trial(
            config=config,
            firmware=firmware,
            qemu=qemu,
            facts=facts,
            accel=guest_options.accelerator(values),
            timeout=values.timeout,
            retry=values.retry,
            ui=ui,
        )
    if asked.unprotected:
        if trial is not None and not _unprotected(trial, report):
            reasons.append("no guest came up")
    else:
        if trial is not None:
            _kvm_guest(trial, report)
        mode = config.sev.mode if config is not None else asked.mode or Mode.SNP
        reasons += obstacles(facts, mode) if firmware is None else reasons_against(facts, mode, qemu, firmware)
    what = "unprotected" if asked.unprotected else f"mode {config.sev.mode if config else asked.mode or 'snp'}"
    further = "; `doctor --unprotected` asks for one without protection" if reasons and not asked.unprotected else ""
    report.add("verdict", not reasons, f"{what}: {'no' if reasons else 'a'} guest can run here{further}")
    _print(report, as_json=values.json, what=what, reasons=reasons)
    return 1 if reasons else 0


def _config(asked: Wanted, report: _Report) -> RuntimeConfig | None:
    try:
        config = asked.configure()
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


def _qemu(values: Values, config: RuntimeConfig | None, report: _Report) -> QemuProgram | None:
    try:
        qemu = guest_options.qemu(values, config)
    except UserError as error:
        report.add("QEMU", False, str(error))
        return None
    uses = []
    if qemu.version < SEV_SINCE:
        uses.append(f"protected guests take {version_text(SEV_SINCE)}")
    if qemu.version < NAMED_KERNEL_SINCE:
        uses.append("serves an edited kernel, so unprotected guests get it as a named blob")
    report.add("QEMU", True, "; ".join([f"{version_text(qemu.version)} at {qemu.path}", *uses]))
    whom = "whoever starts it" if qemu.user is None else f"uid {qemu.user.uid}, another at each start"
    held = "; ".join(qemu.unconfined) or f"runs as {whom}, under its seccomp filter"
    report.add("QEMU's confinement", not qemu.unconfined, held)
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


def _unprotected(trial: _Trial, report: _Report) -> bool:
    """Whether an unprotected guest comes up, under KVM or emulated."""
    kvm = trial.accel is not Accel.TCG and _kvm_guest(trial, report)
    if kvm or trial.accel is Accel.KVM:
        return kvm
    seconds, error = _boot(trial, accel=Accel.TCG, timeout=trial.timeout or TIMEOUTS[Accel.TCG])
    report.add("guest on TCG", error is None, error or f"reached its agent in {seconds:.1f} s")
    if error is None and trial.facts.kvm_error is None and trial.accel is None:
        kvm_trial.remember(trial.qemu, trial.config, works=False)
    return error is None


def _kvm_guest(trial: _Trial, report: _Report) -> bool:
    """Whether a plain guest really runs on KVM: by a verdict of this boot, or by trying."""
    name = "guest on KVM"
    if trial.facts.kvm_error is not None:
        report.add(name, False, "not tried: /dev/kvm cannot be opened")
        return False
    verdict = None if trial.retry else kvm_trial.recall(trial.qemu, trial.config)
    if verdict is not None:
        detail = "reached its agent" if verdict else "did not reach its agent"
        report.add(name, verdict, f"{detail} earlier since this host booted (--retry tries again)")
        return verdict
    seconds, error = _boot(trial, accel=Accel.KVM, timeout=trial_time(trial.timeout))
    report.add(name, error is None, error or f"reached its agent in {seconds:.1f} s")
    if error is None:
        kvm_trial.remember(trial.qemu, trial.config, works=True)
    return error is None


def _boot(trial: _Trial, *, accel: Accel, timeout: float) -> tuple[float, str | None]:
    """Start the real artifacts, unprotected, up to the agent's first word: seconds, and what went wrong."""
    trial.ui.note(f"starting a guest on {accel.upper()}, for up to {timeout:g} s")
    config = trial.config
    spec = Spec(
        config=config,
        qemu=trial.qemu,
        firmware=trial.firmware,
        protection=None,
        cbit=None,
        cmdline=compose(config, append="", binding=UNBOUND, verity=None, rootfs=None),
        binding=UNBOUND,
    )
    nothing = Container(root_kind=RootKind.TAR, root_length=0)
    begun = time.monotonic()
    try:
        with Signals() as signals, RunDir() as folder:
            staging = Staging(spec, folder.path)
            with booted(staging, accel=accel, container=nothing, signals=signals, timeout=timeout):
                return time.monotonic() - begun, None
    except LauncherError as error:
        if error.exit_status > 128:  # a signal to us is no verdict on the host
            raise
        return 0.0, f"{error}{f' ({error.details[-1]})' if error.details else ''}"


def _print(report: _Report, *, as_json: bool, what: str, reasons: list[str]) -> None:
    if as_json:
        document = {
            "schema": 1,
            "asked": what,
            "can_run": not reasons,
            "reasons": reasons,
            "checks": [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in report.lines],
        }
        write_json(document)
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    colour = terminal and colour_wanted()
    width = max(len(name) for name, _, _ in report.lines)
    marks = {True: ("ok", "\x1b[32m"), False: ("no", "\x1b[31m"), None: ("--", "\x1b[2m")}
    for name, ok, detail in report.lines:
        mark, style = marks[ok]
        shown = f"{style}{mark}\x1b[0m" if colour else mark
        write_stdout(f"{shown}  {name:<{width}}  {detail}\n")
    for reason in reasons:
        write_stdout(f"{'':<{width + 6}}{reason}\n")
