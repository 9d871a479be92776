# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""QEMU on this host: where it is, which version, what it can do."""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.host import qemu_user
from tools.launcher.host.qemu_user import QemuUser
from tools.sev.modes import Mode

Version = tuple[int, int, int]

# sev-snp-guest and sev-guest's legacy-vm-type.
SEV_SINCE: Version = (9, 1, 0)
SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
"""QEMU's seccomp filter with everything denied that a running guest does not need."""
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""All that QEMU gets of an environment: the launcher's may hold what is no guest's business, and a guest that takes
QEMU over would have it. PATH is for a script in QEMU's place; what is parsed here is not translated."""
QEMU_NAMES = ("qemu-system-x86_64", "qemu-system-amd64", "qemu-kvm")
_QEMU_EXTRA = ("/usr/libexec/qemu-kvm",)
_OPTION = "--qemu PATH"


def _install(option: str) -> str:
    return f"install Debian's qemu-system-x86 or give {option}"


@dataclass(frozen=True, kw_only=True)
class QemuProgram:
    """A QEMU that was asked: where it is, its version, whether its seccomp sandbox works.

    `user`: whom it becomes; None: it is whoever runs the launcher. `unconfined` are sentences for people: what does
    not hold this QEMU back, and why, though nobody asked for that. `descriptor`: the program, open, where its bytes
    have been compared with a digest; those are run, whatever lies at the path by then.
    """

    path: str
    version: Version
    sandbox: bool
    user: QemuUser | None = None
    unconfined: tuple[str, ...] = ()
    descriptor: int | None = None


def executable(descriptor: int | None) -> dict[str, Any]:
    """What subprocess.Popen takes to run an open program, which its new user could perhaps not reach by its path."""
    if descriptor is None:
        return {}
    return {"executable": f"/proc/self/fd/{descriptor}", "pass_fds": (descriptor,)}


def chosen_qemu(
    given: str | None,
    config: RuntimeConfig | None,
    *,
    user: tuple[int, int] | None = None,
    option: str = _OPTION,
) -> QemuProgram:
    """The QEMU that is given, else the one beside the config, else the host's; UserError as find_qemu().

    `option`: what the caller's user writes to give one.
    """
    own = None
    if given is None and config is not None and config.qemu is not None:
        # Without the file it is the host's; another file in its place is a mistake.
        path = config.path.parent / config.qemu.file
        if not path.exists() and _on_path() is None:
            what = f"is not there, though {config.path.name} names it, and there is no qemu-system-x86_64 on PATH"
            raise UserError(what, where=str(path), hint=f"put it back (./doit build makes it), or {_install(option)}")
        own = artifacts.opened(config, config.qemu) if path.exists() else None
    return find_qemu(given, own=own, user=user, option=option)


def find_qemu(
    given: str | None,
    *,
    own: tuple[Path, int] | None = None,
    user: tuple[int, int] | None = None,
    option: str = _OPTION,
) -> QemuProgram:
    """Find QEMU (the path given, or the artifacts' `own`, or PATH) and ask it for its version.

    `own` is where it lies, and an open descriptor of what has been checked. `user` is the uid and gid that it shall
    have, None: if root starts it, those of nobody. UserError says what to install.
    """
    path, descriptor = (str(own[0]), own[1]) if given is None and own is not None else (_which(given, option), None)
    become, reason = qemu_user.choose(user)
    said = _ask(path, "-version", user=become, descriptor=descriptor)
    version = None if isinstance(said, str) else parse_version(said.decode("utf-8", "replace"))
    if version is None and become is not None:
        # A QEMU that lies where only root may go.
        error = f"{path} cannot be run by uid {become.uid} ({_words(said)})"
        if user is not None:
            raise UserError(error, where="--qemu-user", hint="0 leaves QEMU root")
        become, reason = None, error
        said = _ask(path, "-version", user=None, descriptor=descriptor)
        version = None if isinstance(said, str) else parse_version(said.decode("utf-8", "replace"))
    if version is None:
        hint = f"chmod +x {shlex.quote(path)}" if _lacks_bits(path) else f"give another with {option}"
        raise UserError(f"is no QEMU that runs here ({_words(said)})", where=path, hint=hint)
    probe = (*SANDBOX, "-machine", "none", "-device", "loader,help")
    filtered = _ask(path, *probe, user=become, descriptor=descriptor)
    unconfined = [] if reason is None else [f"QEMU keeps root: {reason}"]
    if isinstance(filtered, str):
        unconfined.append(f"QEMU runs without its seccomp filter, which does not work here: {_words(filtered)}")
    return QemuProgram(
        path=path,
        version=version,
        sandbox=not isinstance(filtered, str),
        user=become,
        unconfined=tuple(unconfined),
        descriptor=descriptor,
    )


def _which(given: str | None, option: str) -> str:
    found = _on_path() if given is None else shutil.which(given)
    if found is not None:
        return str(Path(found).absolute())
    if given is None:
        raise UserError("no qemu-system-x86_64 on PATH", hint=_install(option))
    hint = _install(option)
    if _lacks_bits(given):
        hint = f"chmod +x {shlex.quote(given)} if it is a QEMU, else {hint}"
    raise UserError("no executable file", where=f"{option.partition(' ')[0]} {given}", hint=hint)


def _lacks_bits(path: str) -> bool:
    """Whether there is a file that only has to be made executable."""
    return Path(path).is_file() and not Path(path).stat().st_mode & 0o111


def _on_path() -> str | None:
    return next((found for name in QEMU_NAMES + _QEMU_EXTRA if (found := shutil.which(name))), None)


def parse_version(text: str) -> Version | None:
    """(major, minor, micro) from what `qemu -version` prints."""
    match = re.search(r"version ([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", text)
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)


def _ask(path: str, *words: str, user: QemuUser | None, descriptor: int | None) -> bytes | str:
    """What QEMU prints when it is asked something (it installs the filter before it answers); or why it does not."""
    more: dict[str, Any] = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
    more |= executable(descriptor)
    try:
        answer: subprocess.CompletedProcess[bytes] = subprocess.run(
            [path, *words], cwd="/", env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            check=False, **more,
        )  # fmt: skip
    except OSError as error:
        return error.strerror or "cannot be run"
    except subprocess.TimeoutExpired:
        return f"does not answer to {words[0]}"
    if answer.returncode != 0:
        return (answer.stderr or answer.stdout).decode("utf-8", "replace").strip() or f"status {answer.returncode}"
    return answer.stdout


def _words(said: bytes | str) -> str:
    """The first line of an answer, for an error's text."""
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    return next(iter(text.strip().splitlines()), "no answer")[:200]


def version_text(version: Version) -> str:
    """Dotted."""
    return ".".join(str(part) for part in version)


def obstacle(qemu: QemuProgram, mode: Mode) -> list[str]:
    """Why this QEMU cannot start a protected guest: nothing, or one reason."""
    if qemu.version >= SEV_SINCE:
        return []
    has, takes = version_text(qemu.version), version_text(SEV_SINCE)
    return [f"{qemu.path}: QEMU {has} cannot start a guest in mode {mode}; it takes {takes} or later (Debian 13: 10.0)"]
