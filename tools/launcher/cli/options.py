# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of sev-launch: help texts, parsing, checks that need nothing but the words themselves."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME
from tools.launcher.cli import registry
from tools.launcher.cli.arguments import cmdline_text, default_config, whole
from tools.launcher.config.owner import Wish
from tools.launcher.guest.command_line import Accel
from tools.sev.limits import VCPUS_MAX, memory_mib
from tools.sev.modes import Mode

_TEACH = f"""examples:
  {NAME} run --rootfs busybox.tar -- sh -c 'id -u'
      run a command in an SEV-SNP guest whose root is that tar, and end with its status
  {NAME} run --unprotected --rootfs ./rootfs -- /bin/sh < script
      the same guest without encryption, on any machine: for trying things out
  {NAME} run --mode sev-es --rootfs app.erofs --verity HASH -- /app
      SEV-ES; the guest starts only from an EROFS image with this dm-verity root hash
  {NAME} show --json
      the QEMU command line that `run` would use
  {NAME} doctor
      what this host can do and, if it cannot run the guest, why

exit status of run: that of the command; 128+N when signal N ended it; 126 it cannot be run, 127 not found;
125 the guest failed; 2 a mistake in options, config, artifacts or host."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTNAME = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ID_MAX = (1 << 32) - 2
_TIMEOUT_MAX = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that can be said on the command line; None means: as the config or the host says."""

    command: str
    config: Path
    mode: Mode | None
    unprotected: bool
    accel: Accel | None
    qemu: str | None
    cpus: int | None
    memory_mib: int | None
    rootfs: Path | None
    verity: str | None
    append: str
    console_log: Path | None
    env: tuple[str, ...]
    workdir: str
    uid: int
    gid: int
    hostname: str
    timeout: float | None
    quiet: bool
    json: bool
    cbit: int | None
    retry: bool
    owner: Wish
    argv: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    """argparse's own errors take several lines; ours take one."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"see {self.prog} --help")


def parse(words: Sequence[str]) -> Options:
    """Parse; UserError for a mistake, SystemExit(0) after --help or --version."""
    before, argv = list(words), None
    if "--" in before:
        cut = before.index("--")
        before, argv = before[:cut], tuple(before[cut + 1 :])
    given = _parser().parse_args(before)
    if given.command == "run" and not argv:
        raise UserError("no command to run", hint=f"put it behind --, as in `{NAME} run … -- sh -c 'id -u'`")
    if given.command != "run" and argv:
        raise UserError(f"`{given.command}` runs no command", hint="leave out -- and what follows")
    run = given.command == "run"
    if run and given.rootfs is None:
        raise UserError("no root file system", hint="give --rootfs: a directory, a tar or an EROFS image")
    if getattr(given, "verity", None) is not None and given.rootfs is None:
        raise UserError("--verity belongs to --rootfs")
    accel = getattr(given, "accel", None)
    if accel not in (None, "kvm") and not given.unprotected:
        raise UserError(f"--accel {accel} goes with --unprotected only: encryption needs KVM")
    wish = Wish(**{name: getattr(given, name, None) for name in Wish.__dataclass_fields__})
    wish.check_alone(unprotected=getattr(given, "unprotected", False))
    uid, gid = given.user if run else (0, 0)
    return Options(
        command=given.command,
        config=given.config or default_config(),
        mode=Mode(given.mode) if getattr(given, "mode", None) else None,
        unprotected=getattr(given, "unprotected", False),
        accel=None if accel in (None, "auto") else Accel(accel),
        qemu=getattr(given, "qemu", None),
        cpus=getattr(given, "cpus", None),
        memory_mib=getattr(given, "memory", None),
        rootfs=getattr(given, "rootfs", None),
        verity=getattr(given, "verity", None),
        append=getattr(given, "append", None) or "",
        console_log=getattr(given, "console_log", None),
        env=_environment(given.env, uid=uid) if run else (),
        workdir=given.workdir if run else "/",
        uid=uid,
        gid=gid,
        hostname=getattr(given, "hostname", None) or "",
        timeout=getattr(given, "timeout", None),
        quiet=getattr(given, "quiet", False),
        json=getattr(given, "json", False),
        cbit=getattr(given, "cbit", None),
        retry=getattr(given, "retry", False),
        owner=wish,
        argv=argv or (),
    )


def parse_standalone(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command of registry.COMMANDS; errors as in parse()."""
    return _parser().parse_args(list(words))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Start a confidential guest and run one command in it.",
        epilog=_TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    texts = {
        "run": "start the guest, run a command in it, relay its standard streams, end with its status",
        "show": "print the QEMU command line, one option a line",
        "check": "check config, artifacts and firmware, without asking the host for anything",
        "doctor": "say what this host can do; status 0 when the guest can run on it, 1 when not",
    }
    for name, text in texts.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=_TEACH if name == "run" else None,
            usage=f"{NAME} {name} [options]{' -- COMMAND [ARGUMENT …]' if name == 'run' else ''}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("--config", type=Path, metavar="FILE", help="default: runtime.toml beside this program")
        if name == "check":
            continue
        _add_common(sub)
        if name != "doctor":
            _add_guest(sub)
            _add_owner(sub)
        if name == "run":
            _add_workload(sub)
        else:
            sub.add_argument("--json", action="store_true", help="as one JSON document")
        if name == "show":
            sub.add_argument(
                "--cbit",
                type=whole(1, 63),
                metavar="N",
                help="the C-bit of another host (default: this CPU's)",
            )
        if name == "doctor":
            sub.add_argument("--retry", action="store_true", help="try KVM again instead of remembering")
    for command in registry.COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.text,
            description=f"{command.text[0].upper()}{command.text[1:]}.",
            epilog=command.examples or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add(sub)
    return parser


def _add_common(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("guest")
    group.add_argument("--mode", choices=[str(m) for m in Mode], help="protection; default: the config's")
    group.add_argument("--unprotected", action="store_true", help="no encryption at all, on any machine")
    group.add_argument(
        "--accel",
        choices=["auto", "kvm", "tcg"],
        help="with --unprotected: KVM, emulation, or KVM where a guest really runs on it (default)",
    )
    group.add_argument("--qemu", metavar="PATH", help="default: qemu-system-x86_64 on PATH")
    group.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="wait this long for the agent and for its root (seconds)",
    )
    group.add_argument("--quiet", action="store_true", help="only warnings and errors")


def _add_guest(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("machine and root file system")
    group.add_argument("--rootfs", type=Path, metavar="PATH", help="directory, tar (plain, gz, xz, bz2) or EROFS image")
    group.add_argument(
        "--verity",
        metavar="HASH",
        help="dm-verity root hash of the EROFS image; changes the launch digest through the command line",
    )
    group.add_argument(
        "--cpus", type=whole(1, VCPUS_MAX), metavar="N", help="vCPUs; changes the digest of SEV-ES and SNP"
    )
    group.add_argument("--memory", type=_memory, metavar="SIZE", help="RAM, as in 512M or 2G")
    group.add_argument(
        "--append",
        type=cmdline_text,
        metavar="TEXT",
        help="add to the kernel command line; changes the launch digest",
    )
    group.add_argument("--console-log", type=Path, metavar="FILE", help="kernel console (debug profile only)")


def _add_owner(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("from the guest's owner (docs/id-block.md); not in the launch digest")
    group.add_argument("--id-block", type=Path, metavar="FILE", help="SNP: ID block, plain or base64")
    group.add_argument(
        "--id-auth", type=Path, metavar="FILE", help="SNP: its ID authentication information, plain or base64"
    )
    group.add_argument("--host-data", metavar="HEX|@FILE", help="SNP: 32 bytes that attestation reports will carry")
    group.add_argument(
        "--dh-cert",
        type=Path,
        metavar="FILE",
        help="SEV, SEV-ES: the owner's Diffie-Hellman certificate, base64",
    )
    group.add_argument("--session", type=Path, metavar="FILE", help="SEV, SEV-ES: the owner's session data, base64")


def _add_workload(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("command in the guest")
    group.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="K=V",
        help="environment entry; K alone takes it from here",
    )
    group.add_argument("--workdir", type=_workdir, default="/", metavar="DIR", help="absolute; default: /")
    group.add_argument(
        "--user",
        type=_user,
        default=(0, 0),
        metavar="UID[:GID]",
        help="numbers; default: 0:0; GID without one: UID",
    )
    group.add_argument("--hostname", type=_hostname, metavar="NAME", help="default: sev-guest")


def _memory(text: str) -> int:
    try:
        return memory_mib(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) is None or not 0 < float(text) <= _TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.001 to 86400")
    return float(text)


def _workdir(text: str) -> str:
    if not text.startswith("/") or len(os.fsencode(text)) > 4096:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no absolute path")
    return text


def _hostname(text: str) -> str:
    if _HOSTNAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no host name (1 to 64 of A–Z a–z 0–9 . -)")
    return text


def _user(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", text)
    if match is None or any(int(part) > _ID_MAX for part in match.groups() if part is not None):
        raise argparse.ArgumentTypeError(f"{text!r} is no UID or UID:GID in numbers")
    return int(match[1]), int(match[2] if match[2] is not None else match[1])


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
