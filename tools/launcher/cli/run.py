# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch run`: start the guest, relay one command, end with its status."""

import os
import re
from collections.abc import Sequence

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, UNPROTECTED, Ui
from tools.launcher.base.values import Values
from tools.launcher.channel import protocol
from tools.launcher.channel.streams import STANDARD
from tools.launcher.cli import guest_options
from tools.launcher.cli.guest_options import HOST, MACHINE, OWNER
from tools.launcher.cli.parser import Group, Option, Syntax
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.bring_up import brought_up
from tools.launcher.guest.spec import Spec, Wanted, reasons_against, resolve
from tools.launcher.host import facts as host
from tools.launcher.host.qemu_program import QemuProgram
from tools.sev.modes import ProfileKind

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTNAME = re.compile(r"[A-Za-z0-9.-]{1,64}")


def _workdir(text: str) -> str:
    if not text.startswith("/") or len(os.fsencode(text)) > 4096:
        raise ValueError(f"{text[:80]!r} is no absolute path")
    return text


def _hostname(text: str) -> str:
    if _HOSTNAME.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is no host name (1 to 64 of A–Z a–z 0–9 . -)")
    return text


SYNTAX = Syntax(
    HOST,
    MACHINE,
    OWNER,
    Group(
        "command in the guest",
        Option("--env", "K=V", text="environment entry; K alone takes it from here", many=True),
        Option("--workdir", "DIR", text="absolute; default: /", convert=_workdir, default="/"),
        Option(
            "--user",
            "UID[:GID]",
            text="numbers; default: 0:0; GID without one: UID",
            convert=guest_options.ids,
            default=(0, 0),
        ),
        Option("--hostname", "NAME", text="default: sev-guest", convert=_hostname, default=""),
    ),
    usage=("[options] --rootfs PATH -- COMMAND [ARGUMENT …]",),
    examples=f"""\
examples:
  {NAME} run --rootfs busybox.tar -- sh -c 'id -u'
  {NAME} run --unprotected --rootfs ./rootfs -- /bin/sh < script
  {NAME} run --mode sev-es --rootfs app.erofs --verity HASH -- /app

exit status: that of the command; 128+N when signal N ended it; 126 it cannot be run, 127 not found;
125 the guest failed; 2 a mistake in options, config, artifacts or host""",
    workload=True,
)


def run(values: Values, ui: Ui) -> int:
    """Boot, relay, return the command's status."""
    process = _process(values)
    asked = guest_options.wanted(values)
    config = asked.configure()
    guest_options.check_console(config, values)
    facts = host.gather()
    spec = _spec(asked, config, facts, guest_options.qemu(values))
    _announce(asked, spec, ui, confined=values.confined)
    assert asked.rootfs is not None
    with brought_up(
        spec,
        root=asked.rootfs,
        facts=facts,
        note=ui.note,
        hostname=values.hostname,
        accel=guest_options.accelerator(values),
        timeout=values.timeout,
        console=None if values.console_log is None else values.console_log.absolute(),
        rootfs_limit_mib=values.rootfs_limit,
    ) as (session, limit):
        return session.run(process, STANDARD, limit)


def _process(values: Values) -> protocol.Process:
    """The command, with all that can be said against it before anything is started."""
    if not values.argv:
        raise UserError("no command to run", hint=f"put it behind --, as in `{NAME} run … -- sh -c 'id -u'`")
    if values.rootfs is None:
        raise UserError("no root file system", hint="give --rootfs: a directory, a tar or an EROFS image")
    uid, gid = values.user
    process = protocol.Process(
        argv=[os.fsencode(word) for word in values.argv],
        env=[os.fsencode(entry) for entry in _environment(values.env, uid=uid)],
        cwd=os.fsencode(values.workdir),
        uid=uid,
        gid=gid,
    )
    try:
        protocol.spawn(1, process)
    except ValueError as error:  # a limit of the protocol
        raise UserError(str(error)) from None
    return process


def _environment(entries: Sequence[str], *, uid: int) -> tuple[str, ...]:
    """PATH and HOME, then what was asked for; a later entry wins."""
    result = {"PATH": _PATH, "HOME": "/root" if uid == 0 else "/"}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name:
            raise UserError(f"--env {entry!r} has no name")
        if equals:
            result[name] = value
        elif name in os.environ:
            result[name] = os.environ[name]
        else:
            raise UserError(f"--env {name}: not in the environment here", hint=f"say --env {name}=VALUE")
    return tuple(f"{name}={value}" for name, value in result.items())


def _spec(asked: Wanted, config: RuntimeConfig, facts: host.HostFacts, qemu: QemuProgram) -> Spec:
    """Check what can be checked before anything is started."""
    mode = config.sev.mode
    if not asked.unprotected:
        reasons = reasons_against(facts, mode, qemu, artifacts.read_firmware(config))
        if reasons:
            raise UserError(
                f"this host cannot run a guest in mode {mode}",
                hint=f"`{NAME} doctor` tells more; --unprotected runs it without any protection",
                details=tuple(reasons),
            )
    cbit = facts.encryption.cbit if facts.encryption is not None else None
    return resolve(asked, config, qemu=qemu, cbit=cbit)


def _announce(asked: Wanted, spec: Spec, ui: Ui, *, confined: bool) -> None:
    """Say what every start must say: no protection, no confinement, or a digest that options have moved."""
    unconfined = spec.qemu.unconfined
    if confined and unconfined:
        raise UserError("QEMU would not be confined (--confined)", details=unconfined)
    if asked.unprotected:
        ui.alarm(UNPROTECTED)
    for sentence in unconfined:
        ui.warn(sentence)
    guest_options.note_digest(asked, spec.config, ui)
    if not asked.unprotected and spec.config.profile is ProfileKind.DEBUG:
        ui.warn("debug profile: the guest writes its kernel log where this host reads it")
