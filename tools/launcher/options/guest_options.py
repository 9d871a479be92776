# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Options that say which guest: shared by run, show and doctor, and what becomes of them."""

import re
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.base.values import Values
from tools.launcher.config.owner import Wish
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.binding import Unbound
from tools.launcher.guest.spec import Accel, Wanted
from tools.launcher.host.qemu_program import QemuProgram, chosen_qemu
from tools.launcher.options.arguments import (
    BUNDLE,
    CONFIG,
    QUIET,
    ROOTFS,
    ROOTFS_LIMIT,
    VERITY,
    cmdline_text,
    default_config,
    ids,
    whole,
)
from tools.launcher.options.parser import Group, Option
from tools.sev import policy as policies
from tools.sev.formats import QEMU_NAME
from tools.sev.limits import VCPUS_MAX, memory_mib
from tools.sev.modes import Console, Mode

_TIMEOUT_MAX = 86_400.0
_PRINTS_IT = f"`{NAME} digest` with the same options prints it"


def seconds(text: str) -> float:
    """Converter for a time limit."""
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) is None or not 0 < float(text) <= _TIMEOUT_MAX:
        raise ValueError(f"{text!r} is no number of seconds from 0.001 to 86400")
    return float(text)


HOST = Group(
    "guest",
    CONFIG,
    Option("--mode", choices=[str(m) for m in Mode], text="protection; default: the config's"),
    Option("--unprotected", text="no encryption at all, on any machine"),
    Option(
        "--accel",
        choices=("auto", "kvm", "tcg"),
        text="with --unprotected: KVM, emulation, or KVM where a guest really runs on it (auto, the default)",
    ),
    Option("--qemu", "PATH", text=f"default: {QEMU_NAME} beside the config, else qemu-system-x86_64 on PATH"),
    Option(
        "--qemu-user",
        "UID[:GID]",
        text="who QEMU is when root starts it; default: a uid that nobody else has; 0: root",
        convert=ids,
    ),
    Option("--confined", text="refuse where QEMU would keep root, or run without its seccomp filter"),
    Option("--timeout", "S", text="wait so many seconds for the agent, and for its root", convert=seconds),
    QUIET,
)
MACHINE = Group(
    "machine and root file system",
    BUNDLE,
    ROOTFS,
    ROOTFS_LIMIT,
    VERITY,
    Option("--cpus", "N", text="vCPUs; changes the launch digest of SEV-ES and SEV-SNP", convert=whole(1, VCPUS_MAX)),
    Option("--memory", "SIZE", text="RAM, as in 512M or 2G", convert=memory_mib),
    Option("--append", "TEXT", text="for the kernel command line; changes the launch digest", convert=cmdline_text),
    Option("--console-log", "FILE", text="kernel console (debug profile only)", convert=Path),
)
OWNER = Group(
    "from the guest's owner (docs/id-block.md); not in the launch digest",
    Option("--id-block", "FILE", text="SEV-SNP: ID block, plain or base64", convert=Path),
    Option("--id-auth", "FILE", text="SEV-SNP: its ID authentication information, plain or base64", convert=Path),
    Option("--host-data", "HEX|@FILE", text="SEV-SNP: 32 bytes that attestation reports will carry"),
    Option("--dh-cert", "FILE", text="SEV, SEV-ES: the owner's Diffie-Hellman certificate, base64", convert=Path),
    Option("--session", "FILE", text="SEV, SEV-ES: the owner's session data, base64", convert=Path),
)


def wanted(values: Values) -> Wanted:
    """The guest that the options ask for; UserError where they contradict each other."""
    rootfs, verity = values.get("rootfs"), values.get("verity")
    if verity is not None and rootfs is None:
        raise UserError("--verity belongs to --rootfs")
    if values.accel not in (None, "kvm") and not values.unprotected:
        raise UserError(f"--accel {values.accel} goes with --unprotected only: encryption needs KVM")
    wish = Wish(**{name: values.get(name) for name in Wish.__dataclass_fields__})  # type: ignore[arg-type]  # by name
    wish.check_alone(unprotected=values.unprotected)
    return Wanted(
        config=values.config or default_config(),
        mode=Mode(values.mode) if values.mode else None,
        unprotected=values.unprotected,
        cpus=values.get("cpus"),  # type: ignore[arg-type]  # the option's converter made it
        memory_mib=values.get("memory"),  # type: ignore[arg-type]  # the option's converter made it
        append=values.get("append") or "",  # type: ignore[arg-type]  # text
        rootfs=rootfs,  # type: ignore[arg-type]  # the option's converter made it
        verity=verity,  # type: ignore[arg-type]  # text
        owner=wish,
    )


def qemu(values: Values, config: RuntimeConfig | None) -> QemuProgram:
    """The QEMU that the options ask for, else the one beside the config, else the host's."""
    return chosen_qemu(values.qemu, config, user=values.qemu_user)


def accelerator(values: Values) -> Accel | None:
    """What --accel says; None: whichever works."""
    return None if values.accel in (None, "auto") else Accel(values.accel)


def check_console(config: RuntimeConfig, values: Values) -> None:
    """UserError for a console log that nothing would be written to."""
    if values.console_log is not None and config.devices.console is not Console.SERIAL:
        raise UserError(
            f"--console-log: the {config.profile} profile has no console",
            hint="use the debug profile's artifacts",
        )


def warn_of_openings(asked: Wanted, config: RuntimeConfig, ui: Ui) -> None:
    """Say by what the policy of a protected guest lets its host read it."""
    if asked.unprotected:
        return
    mode = config.sev.mode
    for name, text in policies.openings(config.sev.policy(mode), policies.LAYOUTS[mode]):
        ui.warn(f"the policy of mode {mode} leaves the guest open to its host: {name}: {text}")


def note_digest(asked: Wanted, config: RuntimeConfig, ui: Ui) -> None:
    """Say which options move the launch digest."""
    if asked.append or (isinstance(asked.binding, Unbound) and asked.verity is not None):
        ui.note(f"the kernel command line differs from the config's: the launch digest changes by it; {_PRINTS_IT}")
    if asked.unprotected:
        return
    if asked.mode is not None:
        ui.note(f"--mode {asked.mode}: the launch digest is that of this mode; {_PRINTS_IT}")
    if asked.cpus is not None and config.sev.mode is not Mode.SEV:
        count = "1 vCPU" if asked.cpus == 1 else f"{asked.cpus} vCPUs"
        ui.note(f"--cpus {asked.cpus}: the launch digest is that of {count}; {_PRINTS_IT}")
