# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch run`: start the guest, relay one command, end with its status."""

import dataclasses
import os
import stat
from pathlib import Path

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, UNPROTECTED, Ui
from tools.launcher.base.values import Values
from tools.launcher.channel import control, requests
from tools.launcher.channel.streams import STANDARD
from tools.launcher.channel.terminal import Terminal, here
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest.binding import Binding
from tools.launcher.guest.bring_up import brought_up
from tools.launcher.guest.spec import Spec, Wanted, reasons_against, resolve
from tools.launcher.host import facts as host
from tools.launcher.host.qemu_program import QemuProgram
from tools.launcher.options import guest_options
from tools.launcher.options.guest_options import HOST, MACHINE, OWNER
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.options.program import (
    EXCLUSIVE,
    FOLDER,
    PROGRAM,
    check,
    chosen,
    environment_of,
    folders,
    host_environment,
    unfold,
)
from tools.sev.modes import ProfileKind
from tools.sev.workload.document import Document

SYNTAX = Syntax(
    HOST,
    MACHINE,
    OWNER,
    PROGRAM,
    Group(
        "from the host, where the workload document opens it",
        Option("--file", "TARGET=FILE", text="a file that the document lets the host supply", many=True),
        FOLDER,
        Option("--control", "PATH", text=f"socket at which `{NAME} attest` asks for reports", convert=Path),
    ),
    usage=(
        "[options] --rootfs PATH -- COMMAND [ARGUMENT …]",
        "[options] --rootfs PATH --workload FILE",
        "[options] --bundle DIR",
    ),
    examples=f"""\
examples:
  {NAME} run --rootfs busybox.tar -- sh -c 'id -u'
  {NAME} run --unprotected --rootfs ./rootfs --open stdin -- /bin/sh < script
  {NAME} run --unprotected --rootfs ./rootfs --tty --open stdin --open resize -- /bin/sh
  {NAME} run --mode sev-es --rootfs app.erofs --verity "$HASH" -- /app
  {NAME} run --bundle app

exit status: that of the command; 128+N when signal N ended it; 126 it cannot be run, 127 not found;
125 the guest failed; 2 a mistake in options, config, artifacts or host""",
    exclusive=EXCLUSIVE,
    workload=True,
)


def run(values: Values, ui: Ui) -> int:
    """Boot, relay, return the command's status."""
    unfold(values)
    if values.workload is None and not values.argv:
        raise UserError("no command to run", hint=f"put it behind --, as in `{NAME} run … -- sh -c 'id -u'`")
    if values.rootfs is None:
        raise UserError("no root file system", hint="give --rootfs: a directory, a tar or an EROFS image")
    check(values)
    if values.unbound:
        _check(spawned(values))
    asked = guest_options.wanted(values)
    config = asked.configure()
    guest_options.check_console(config, values)
    facts = host.gather()
    qemu = guest_options.qemu(values, config)
    _refuse(asked, config, facts, qemu)
    with chosen(values, ui, memory=config.machine.memory_mib) as (binding, image):
        asked = dataclasses.replace(asked, binding=binding, folders=folders(values, binding))
        spec = _spec(asked, config, facts, qemu)
        what: requests.Process | requests.Run
        if isinstance(binding, Document):
            size = (0, 0) if binding.process.terminal else None
            what = requests.Run(doors=binding.process.host, env=host_environment(values, binding), size=size)
            hostname, files = _from_the_host(values, binding)
        else:
            what, hostname, files = spawned(values), values.hostname, {}
        _check(what)
        terminal = _terminal(values, what)
        _check_control(values.control, binding)
        _announce(asked, spec, ui, confined=values.confined)
        with (
            brought_up(
                spec,
                root=image or values.rootfs,
                facts=facts,
                note=ui.note,
                hostname=hostname,
                files=files,
                accel=guest_options.accelerator(values),
                timeout=values.timeout,
                console=None if values.console_log is None else values.console_log.absolute(),
                rootfs_limit_mib=values.rootfs_limit,
            ) as (session, limit),
            control.opened(values.control, session),
        ):
            return session.run(what, STANDARD, limit, terminal)


def spawned(values: Values) -> requests.Process:
    """The command of an unbound guest."""
    uid, gid = values.user or (0, 0)
    return requests.Process(
        argv=[os.fsencode(word) for word in values.argv],
        env=[os.fsencode(entry) for entry in environment_of(values)],
        cwd=os.fsencode(values.workdir or "/"),
        uid=uid,
        gid=gid,
        size=(0, 0) if values.tty else None,
    )


def _terminal(values: Values, what: requests.Process | requests.Run) -> Terminal | None:
    """Where the workload's terminal is shown."""
    if what.size is None:
        return None
    keys = isinstance(what, requests.Process) or what.doors.stdin
    if values.tty and keys and not os.isatty(0):
        raise UserError("--tty: standard input is no terminal", hint="leave --tty out")
    return here(keys=keys)


def _check(what: requests.Process | requests.Run) -> None:
    """UserError when a limit of the protocol is exceeded."""
    try:
        if isinstance(what, requests.Run):
            requests.run(1, what)
        else:
            requests.spawn(1, what)
    except ValueError as error:
        raise UserError(str(error)) from None


def _check_control(path: Path | None, binding: Binding | None) -> None:
    """UserError for a socket at which everything would be refused."""
    if path is None or (isinstance(binding, Document) and binding.host_reports):
        return
    if isinstance(binding, Document):
        what, hint = "the workload document does not let the host ask for reports", "--open host-reports makes one"
    else:
        what, hint = "no document lets the host of an unbound guest ask", "a program in the guest may"
    raise UserError(what, where="--control", hint=hint)


def _from_the_host(values: Values, document: Document) -> tuple[str, dict[int, bytes]]:
    """Host name and files that the host gives to a document that opens them."""
    if values.workload is not None and values.hostname and not document.host_names_it:
        raise UserError("--hostname: the workload document does not let the host choose it")
    given: dict[int, bytes] = {}
    for text in values.file:
        target, _, name = text.partition("=")
        number = next((n for n, file in enumerate(document.files) if file.target == target), None)
        if number is None or number in given:
            what = "is no file that the workload document lets the host supply" if number is None else "stands twice"
            raise UserError(f"{target[:200]!r} {what}", where="--file")
        length = document.files[number].length
        most = f"the {length} bytes of the workload document"
        given[number] = files.read(Path(name), length, where=f"--file {text[:200]}", most=most)
    return (values.hostname if values.workload is not None else ""), given


def _refuse(asked: Wanted, config: RuntimeConfig, facts: host.HostFacts, qemu: QemuProgram) -> None:
    """UserError when this host cannot start such a guest."""
    mode = config.sev.mode
    if asked.unprotected:
        return
    reasons = reasons_against(facts, mode, qemu, artifacts.read_firmware(config))
    if reasons:
        raise UserError(
            f"this host cannot run a guest in mode {mode}",
            hint=f"`{NAME} doctor` tells more; --unprotected runs it without any protection",
            details=tuple(reasons),
        )


def _spec(asked: Wanted, config: RuntimeConfig, facts: host.HostFacts, qemu: QemuProgram) -> Spec:
    """Check what else can be checked before anything is started."""
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
    guest_options.warn_of_openings(asked, spec.config, ui)
    if isinstance(asked.binding, Document):
        process = asked.binding.process
        if not process.host.stdin and (process.terminal or _somebody_writes()):
            ui.note("standard input is closed to the workload; --open stdin opens it, in another launch digest")
    elif not asked.unprotected:
        ui.warn("unbound guest: this host chooses what runs in it, and its launch digest says nothing about that")
    if not asked.unprotected and spec.config.profile is ProfileKind.DEBUG:
        ui.warn("debug profile: the guest writes its kernel log where this host reads it")


def _somebody_writes() -> bool:
    """Whether standard input is a file or a pipe, and so meant for the workload."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
