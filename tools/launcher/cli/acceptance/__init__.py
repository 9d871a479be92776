# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch acceptance`: what is claimed of guests, looked at on this host, line by line."""

import json
import os
from pathlib import Path

from tools.launcher.acceptance import catalogue, probe, scenario
from tools.launcher.acceptance.document import document
from tools.launcher.acceptance.model import PROTECTED, Evidence, Guest
from tools.launcher.acceptance.signer import Signer
from tools.launcher.acceptance.starts import Bench
from tools.launcher.attest.certificates import File, Given, Role
from tools.launcher.attest.inputs import read_file, sized_file
from tools.launcher.attest.measurement import TIK_SIZE
from tools.launcher.attest.report import SigningKey
from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.base.ui import NAME, Ui, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.channel.streams import Signals
from tools.launcher.cli.acceptance.table import text
from tools.launcher.config import artifacts
from tools.launcher.config.owner import Wish
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest import accelerators
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel, Wanted, reasons_against
from tools.launcher.host import facts as host
from tools.launcher.options import guest_options
from tools.launcher.options.arguments import CONFIG, QUIET, default_config
from tools.launcher.options.parser import Group, Option, Syntax

_FILE = "acceptance.json"

SYNTAX = Syntax(
    Group(
        "guests",
        CONFIG,
        Option(
            "--mode",
            choices=[str(guest) for guest in Guest],
            text="only this one, and the unprotected guest that it is compared with; default: each that this host has",
        ),
        Option(
            "--accel",
            choices=("auto", "kvm", "tcg"),
            text="of the unprotected guest: KVM, emulation, or KVM where a guest runs on it (auto, the default)",
        ),
        *(option for option in guest_options.HOST.options if option.name in ("--qemu", "--qemu-user")),
        Option(
            "--timeout",
            "S",
            text="most seconds for each answer of a guest; default: 120, under emulation 300",
            convert=guest_options.seconds,
        ),
        QUIET,
    ),
    Group(
        "from the guest's owner",
        Option("--vcek", "FILE", text="SEV-SNP: certificate of the key that signs reports", convert=Path),
        Option("--vlek", "FILE", text="the same of a cloud provider", convert=Path),
        Option("--chain", "FILE", text="SEV-SNP: ASK and ARK, as AMD's key server has them", convert=Path),
        Option("--dh-cert", "FILE", text="SEV, SEV-ES, with --mode: the Diffie-Hellman certificate", convert=Path),
        Option("--session", "FILE", text="SEV, SEV-ES, with --mode: the session data", convert=Path),
        Option("--tik", "FILE", text="SEV, SEV-ES, with --mode: the session's integrity key, 16 bytes", convert=Path),
    ),
    Group(
        "output",
        Option(
            "--json",
            "FILE",
            text=f"also all of it for programs; default: {_FILE} here, which must not exist yet",
            convert=Path,
        ),
    ),
    examples=f"""\
examples:
  {NAME} acceptance
      starts a guest of each mode that this host has, a dozen times in each; about ten minutes
  {NAME} acceptance --mode snp --vcek vcek.der --chain cert_chain.pem --json snp.json
      SEV-SNP alone; the certificates of this host's processor complete the line signed-report
  {NAME} acceptance --mode unprotected --accel tcg
      what can be shown on any machine: about a minute

A line is "held" when it was seen to hold in this run, beside a control that went the other way; "failed" when the
opposite was seen, or a guest hung; "not run" with the reason. docs/acceptance.md says what each line means.

exit status: 0 all that this host can run held; 1 something failed, or nothing could be run of the mode that was asked
for; 2 a mistake in options, config or artifacts""",
    exclusive=(("--vcek", "--vlek"),),
)


def run(values: Values, ui: Ui) -> int:
    """Start the guests; the table on stdout, all of it in a file."""
    output = values.json or Path(_FILE)
    if values.json is None and os.path.lexists(output):
        raise UserError("is there already", where=str(output), hint="--json FILE writes another, or over this one")
    if not os.access(output.absolute().parent, os.W_OK):
        raise UserError("nothing can be written there", where=str(output.absolute().parent), hint="give --json FILE")
    asked = None if values.mode is None else Guest(values.mode)
    wish, tik = _owner(values, asked)
    given = _given(values)
    config = Wanted(config=values.config or default_config()).configure()
    for artifact in config.artifacts:
        artifacts.verify(config, artifact)
    with Signals() as signals, RunDir() as folder:
        root, tar = probe.root(folder.path)
        bench = Bench(
            config=config,
            qemu=guest_options.qemu(values, config),
            facts=host.gather(),
            accel=Accel.TCG,
            timeout=values.timeout,
            signals=signals,
            folder=folder.path,
            root=root,
            tar=tar,
            signer=Signer(),
            note=ui.note,
            wish=wish,
            tik=tik,
        )
        absent = {guest: _why_not(guest, asked, config, bench) for guest in PROTECTED}
        if asked in PROTECTED and absent[asked]:
            hint = f"`{NAME} acceptance --mode unprotected` shows what any machine can"
            reasons = "; ".join(absent[asked])
            raise CheckError(f"this host has no guests of this mode: {reasons}", where=f"--mode {asked}", hint=hint)
        bench = bench.on(_accelerator(values, bench))
        some = not all(absent.values())
        evidence: dict[Guest, Evidence] = {}
        for guest in Guest:
            if absent.get(guest):
                evidence[guest] = Evidence(guest=guest, why_not=absent[guest])
                continue
            timed = some and bench.accelerator(guest) is Accel.KVM
            evidence[guest] = scenario.gather(bench, guest, timed=timed)
            evidence[guest].given = given
    lines = catalogue.judged(evidence)
    try:
        output.write_text(json.dumps(document(bench, evidence, lines), indent=2) + "\n")
    except OSError as error:
        ui.error(f"{output}: {error.strerror}")
    write_stdout(text(bench, evidence, lines))
    ui.note(f"{output} has all of it for programs")
    return catalogue.status(lines, asked=asked)


def _owner(values: Values, asked: Guest | None) -> tuple[Wish, bytes | None]:
    """What an owner gave for SEV and SEV-ES guests; all of it or nothing, and for one mode, whose policy is in it."""
    given = [name for name in ("dh_cert", "session", "tik") if values[name] is not None]
    if not given:
        return Wish(), None
    if len(given) < 3:
        raise UserError("--dh-cert, --session and --tik go together or not at all")
    if asked not in (Guest.SEV, Guest.SEV_ES):
        raise UserError("--session is for one guest policy", hint="give --mode sev or --mode sev-es with it")
    tik = sized_file(values.tik, TIK_SIZE, where=f"--tik {values.tik}")
    return Wish(dh_cert=values.dh_cert, session=values.session), tik


def _given(values: Values) -> Given | None:
    leaf = values.vcek or values.vlek
    if leaf is None and values.chain is None:
        return None
    files = {} if leaf is None else {Role.LEAF: File(where=str(leaf), data=read_file(leaf))}
    chain = None if values.chain is None else File(where=str(values.chain), data=read_file(values.chain))
    kind = SigningKey.VCEK if values.vcek else SigningKey.VLEK if values.vlek else None
    return Given(files=files, chain=chain, crl=None, leaf_kind=kind)


def _accelerator(values: Values, bench: Bench) -> Accel:
    """Who executes the unprotected guest; a guest is tried on KVM where nobody has yet."""
    if values.accel in ("kvm", "tcg"):
        if values.accel == "kvm" and bench.facts.kvm_error is not None:
            raise UserError(bench.facts.kvm_error, where="/dev/kvm", hint="--accel tcg emulates")
        return Accel(values.accel)
    spec = bench.spec(Guest.PLAIN, probe.document(bench.tar, commands=True))
    return accelerators.settled(
        spec, root=bench.root, facts=bench.facts, signals=bench.signals, timeout=bench.timeout, note=bench.note
    )


def _why_not(guest: Guest, asked: Guest | None, config: RuntimeConfig, bench: Bench) -> tuple[str, ...]:
    """What stands against guests of a mode, on this host or by the options."""
    if asked is not None and guest is not asked:
        return (f"--mode {asked} was given",)
    assert guest.mode is not None
    return tuple(reasons_against(bench.facts, guest.mode, bench.qemu, artifacts.read_firmware(config)))
