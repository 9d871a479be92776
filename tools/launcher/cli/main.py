# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The commands, and the one place where errors become a line and an exit status."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.launcher.base.errors import GuestError, LauncherError, UserError
from tools.launcher.base.ui import Ui, write_stdout
from tools.launcher.cli import registry
from tools.launcher.cli.doctor import doctor
from tools.launcher.cli.options import Options, parse, parse_standalone
from tools.launcher.config import artifacts, owner
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest import command_line
from tools.launcher.guest.command_line import Accel, Files, QemuProgram
from tools.launcher.guest.launch import (
    Guest,
    Staging,
    announce,
    build_hashes,
    check_protection,
    configure,
    kernel_cmdline,
    note_digest,
    plan_for,
    prepare_rootfs,
    request_for,
    run_workload,
)
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.host import kvm_trial
from tools.launcher.host.facts import HostFacts, find_qemu, gather
from tools.launcher.measure import digest_file
from tools.sev.modes import Console, Mode


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status and never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    own = words[: words.index("--")] if "--" in words else words
    ui = Ui(quiet="--quiet" in own)
    try:
        return _dispatch(words, ui)
    except LauncherError as error:
        ui.error(str(error))
        for line in error.details if isinstance(error, GuestError) else ():
            ui.detail(line)
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our answer left; Python must not complain about that again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        ui.error(f"{where}{error.strerror or error}")
        return LauncherError.exit_status


def _dispatch(words: list[str], ui: Ui) -> int:
    try:
        alone = registry.find(words)
        if alone is not None:
            return alone.run(parse_standalone(words), ui)
        options = parse(words)
    except SystemExit as end:  # after --help
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else 0
    commands = {"run": _run, "show": _show, "check": _check, "doctor": doctor}
    return commands[options.command](options, ui)


def _run(options: Options, ui: Ui) -> int:
    config = configure(options)
    _check_console(config, options)
    qemu = find_qemu(options.qemu)
    facts = gather()
    guest = _guest(config, options, facts=facts, qemu=qemu, cbit=None, ui=ui)
    announce(config, options, ui)
    with RunDir() as folder:
        image = prepare_rootfs(options, folder, ui)
        try:
            request = request_for(options, image)
            log = None if options.console_log is None else options.console_log.absolute()
            staging = Staging(guest, folder.path, console_log=log)
            staging.add_rootfs(image)
            return run_workload(staging, options=options, facts=facts, request=request, ui=ui)
        except ValueError as error:  # a limit of the protocol
            raise UserError(str(error)) from None


def _guest(
    config: RuntimeConfig,
    options: Options,
    *,
    facts: HostFacts,
    qemu: QemuProgram,
    cbit: int | None,
    ui: Ui,
) -> Guest:
    """Check what can be checked before anything is started. `cbit` given: not for this host, only shown."""
    firmware = artifacts.read_firmware(config)
    mode = config.sev.mode
    if not options.unprotected and cbit is None:
        reasons = check_protection(facts, mode, qemu, firmware)
        if reasons:
            raise UserError(
                f"this host cannot run a guest in mode {mode}: {'; '.join(reasons)}",
                hint="`sev-launch doctor` tells more; --unprotected runs it without any protection",
            )
        cbit = facts.encryption.cbit if facts.encryption is not None else None
    cmdline = kernel_cmdline(config, options, ui)
    given = owner.read(options.owner, config, expected_digest=_expected_digest(config, options, cmdline))
    return Guest(
        config=config,
        qemu=qemu,
        firmware=firmware,
        protection=None if options.unprotected else mode,
        cbit=None if options.unprotected else cbit,
        cmdline=cmdline,
        owner=given,
    )


def _expected_digest(config: RuntimeConfig, options: Options, cmdline: str) -> bytes | None:
    """The launch digest of this very guest where an ID block will be compared with it; None without one."""
    if options.owner.id_block is None or config.sev.mode is not Mode.SNP:
        return None
    own = digest_file.launch_digests(config, cmdline=cmdline)
    return bytes.fromhex(digest_file.configured(config, own)[Mode.SNP])


def _check_console(config: RuntimeConfig, options: Options) -> None:
    if options.console_log is not None and config.devices.console is not Console.SERIAL:
        raise UserError(
            f"--console-log: the {config.profile} profile has no console",
            hint="use the debug profile's artifacts",
        )


def _check(options: Options, _: Ui) -> int:
    """What the build asks of its own output: everything that `run` would refuse whatever the host."""
    config = configure(options)
    for artifact in config.artifacts:
        artifacts.verify(config, artifact)
    digest_file.check(config)
    what = f"{len(config.artifacts)} artifacts and their launch digests in order"
    write_stdout(f"{config.path}: {config.profile} {config.version}, {what}\n")
    return 0


def _show(options: Options, ui: Ui) -> int:
    config = configure(options)
    _check_console(config, options)
    try:
        qemu = find_qemu(options.qemu)
    except UserError as error:
        if options.qemu is not None:
            raise
        ui.note(f"{error}; showing what QEMU 10.0 would be given")
        qemu = QemuProgram(path="qemu-system-x86_64", version=(10, 0, 0), sandbox=True)
    facts = gather()
    cbit = options.cbit
    if cbit is None and not options.unprotected:
        if facts.encryption is None or not facts.encryption.cbit:
            raise UserError(
                "this CPU has no C-bit to show", hint="--cbit N shows it for a host that has, e.g. --cbit 51"
            )
        cbit = facts.encryption.cbit
    guest = _guest(config, options, facts=facts, qemu=qemu, cbit=cbit, ui=ui)
    accel = Accel.KVM
    if options.unprotected:
        ui.alarm("unprotected: nothing would be encrypted")
        known = facts.kvm_error is None and kvm_trial.recall(qemu, config) is True
        accel = options.accel or (Accel.KVM if known else Accel.TCG)
    note_digest(config, options, ui)
    plan = plan_for(guest, accel=accel, files=_shown_files(config, options))
    chosen = command_line.build(plan)
    if options.json:
        document = {
            "schema": 1,
            "profile": str(config.profile),
            "protection": None if guest.protection is None else str(guest.protection),
            "accel": str(accel),
            "qemu": {"path": qemu.path, "version": list(qemu.version)},
            "argv": command_line.argv(chosen),
            "options": [list(option) for option in chosen],
            "kernel_cmdline": guest.cmdline,
            "hashes_table": build_hashes(guest).hex(),
            "artifacts": {a.role: {"file": a.file, "sha256": a.sha256, "size": a.size} for a in config.artifacts},
        }
        write_stdout(json.dumps(document, indent=2) + "\n")
    else:
        write_stdout(command_line.shell(chosen) + "\n")
    return 0


def _shown_files(config: RuntimeConfig, options: Options) -> Files:
    """Artifacts where they lie; what `run` makes in its private folder under its plain name."""
    folder = config.path.absolute().parent
    serial = config.devices.console is Console.SERIAL
    return Files(
        kernel=str(folder / config.kernel.file),
        initramfs=None if config.initramfs is None else str(folder / config.initramfs.file),
        firmware=str(folder / config.firmware.file),
        rootfs=None if options.rootfs is None else str(options.rootfs.absolute()),
        hashes="hashes.bin" if options.unprotected else None,
        console_log=str(options.console_log or "console.log") if serial else None,
        firmware_log="firmware.log" if serial else None,
        dh_cert=_shown(options.owner.dh_cert),
        session=_shown(options.owner.session),
    )


def _shown(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
