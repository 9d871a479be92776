# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch show`: the QEMU command line that `run` would use."""

import dataclasses
import os
import re

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest import command_line
from tools.launcher.guest.command_line import Option as QemuOption
from tools.launcher.guest.spec import Accel, Spec, Wanted, resolve
from tools.launcher.guest.staging import shown
from tools.launcher.host import facts as host
from tools.launcher.host import kvm_trial
from tools.launcher.host.qemu_program import QemuProgram
from tools.launcher.options import guest_options
from tools.launcher.options.arguments import JSON, whole
from tools.launcher.options.guest_options import HOST, MACHINE, OWNER
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import EXCLUSIVE, FOLDER, PROGRAM, check, chosen, folders, unfold

# The ID block's authentication information has 4096 bytes: 5464 characters that no person reads.
_LONG = re.compile(r"(?<==)[A-Za-z0-9+/]{200,}={0,2}")
SYNTAX = Syntax(
    HOST,
    MACHINE,
    OWNER,
    PROGRAM,
    Group("from the host, where the workload document opens it", FOLDER),
    Group(
        "output",
        JSON,
        Option("--cbit", "N", text="C-bit position, for a host that is not this one", convert=whole(1, 63)),
    ),
    exclusive=EXCLUSIVE,
    workload=True,
    usage=(
        "[options] --rootfs PATH -- COMMAND [ARGUMENT …]",
        "[options] --workload FILE",
        "[options] --bundle DIR",
        "[options] --unbound",
    ),
    examples="on a terminal long base64 is shortened; redirected, or with --json, it is whole",
)


def run(values: Values, ui: Ui) -> int:
    """Print it; nothing is started."""
    unfold(values)
    check(values)
    asked = guest_options.wanted(values)
    config = asked.configure()
    with chosen(values, ui, memory=config.machine.memory_mib) as (binding, _):
        return _show(dataclasses.replace(asked, binding=binding, folders=folders(values, binding)), config, values, ui)


def _show(asked: Wanted, config: RuntimeConfig, values: Values, ui: Ui) -> int:
    guest_options.check_console(config, values)
    try:
        qemu = guest_options.qemu(values, config)
    except UserError as error:
        if values.qemu is not None:
            raise
        ui.note(f"{error}; showing what QEMU 10.0 would be given")
        qemu = QemuProgram(path="qemu-system-x86_64", version=(10, 0, 0), sandbox=True)
    facts = host.gather()
    spec = resolve(asked, config, qemu=qemu, cbit=None if asked.unprotected else _cbit(values, facts))
    accel = Accel.KVM
    if asked.unprotected:
        ui.alarm("unprotected: nothing would be encrypted")
        known = facts.kvm_error is None and kvm_trial.recall(qemu, config) is True
        accel = guest_options.accelerator(values) or (Accel.KVM if known else Accel.TCG)
    guest_options.note_digest(asked, config, ui)
    guest_options.warn_of_openings(asked, config, ui)
    _print(spec, accel, asked, values)
    return 0


def _cbit(values: Values, facts: host.HostFacts) -> int:
    cbit: int | None = values.cbit
    if cbit is None:
        cbit = facts.encryption.cbit if facts.encryption is not None else None
    if not cbit:
        raise UserError("this CPU has no C-bit to show", hint="--cbit N shows it for a host that has, e.g. --cbit 51")
    return cbit


def _print(spec: Spec, accel: Accel, asked: Wanted, values: Values) -> None:
    chosen = command_line.build(spec, accel=accel, files=shown(spec, asked, console=values.console_log))
    if not values.json:
        write_stdout(command_line.shell(_shortened(chosen) if os.isatty(1) else chosen) + "\n")
        return
    config = spec.config
    document = {
        "schema": 1,
        "profile": str(config.profile),
        "protection": None if spec.protection is None else str(spec.protection),
        "accel": str(accel),
        "qemu": {"path": spec.qemu.path, "version": list(spec.qemu.version)},
        "argv": command_line.argv(chosen),
        "options": [list(option) for option in chosen],
        "kernel_cmdline": spec.cmdline,
        "hashes_table": spec.hashes.hex(),
        "artifacts": {a.role: {"file": a.file, "sha256": a.sha256, "size": a.size} for a in config.artifacts},
    }
    write_json(document)


def _shortened(options: list[QemuOption]) -> list[QemuOption]:
    return [tuple(_LONG.sub(lambda m: f"{m[0][:16]}…{len(m[0])} characters", w) for w in option) for option in options]
