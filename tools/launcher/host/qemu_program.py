# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""QEMU on this host: where it is, which version, what it can do."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.sev.modes import Mode

Version = tuple[int, int, int]

# sev-snp-guest and sev-guest's legacy-vm-type.
SEV_SINCE: Version = (9, 1, 0)
SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
"""QEMU's seccomp filter with everything denied that a running guest does not need."""
QEMU_NAMES = ("qemu-system-x86_64", "qemu-system-amd64", "qemu-kvm")
_QEMU_EXTRA = ("/usr/libexec/qemu-kvm",)
_INSTALL = "install Debian's qemu-system-x86 or give --qemu PATH"


@dataclass(frozen=True, kw_only=True)
class QemuProgram:
    """A QEMU that was asked: where it is, its version, whether its seccomp sandbox works."""

    path: str
    version: Version
    sandbox: bool


def find_qemu(given: str | None) -> QemuProgram:
    """Find QEMU (the path given, or PATH) and ask it for its version; UserError says what to install."""
    path = _which(given)
    try:
        answer = subprocess.run(
            [path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except OSError as error:
        raise UserError(f"cannot be run: {error.strerror}", where=path) from None
    except subprocess.TimeoutExpired:
        raise UserError("does not answer to -version", where=path) from None
    version = parse_version(answer.stdout.decode("utf-8", "replace"))
    if answer.returncode != 0 or version is None:
        words = (answer.stderr or answer.stdout).decode("utf-8", "replace").strip().splitlines()
        raise UserError(f"is no QEMU that runs here ({words[0][:200] if words else 'no answer'})", where=path)
    return QemuProgram(path=path, version=version, sandbox=_sandbox_works(path))


def _which(given: str | None) -> str:
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise UserError("no executable file", where=f"--qemu {given}", hint=_INSTALL)
        return str(Path(found).absolute())
    for name in QEMU_NAMES + _QEMU_EXTRA:
        found = shutil.which(name)
        if found is not None:
            return str(Path(found).absolute())
    raise UserError("no qemu-system-x86_64 on PATH", hint=_INSTALL)


def parse_version(text: str) -> Version | None:
    """(major, minor, micro) from what `qemu -version` prints."""
    match = re.search(r"version ([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", text)
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)


def _sandbox_works(path: str) -> bool:
    # QEMU installs the filter before it answers `-device help`-like questions, so this tries it for real.
    try:
        answer = subprocess.run(
            [path, *SANDBOX, "-machine", "none", "-device", "loader,help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def version_text(version: Version) -> str:
    """Dotted."""
    return ".".join(str(part) for part in version)


def obstacle(qemu: QemuProgram, mode: Mode) -> list[str]:
    """Why this QEMU cannot start a protected guest: nothing, or one reason."""
    if qemu.version >= SEV_SINCE:
        return []
    has, takes = version_text(qemu.version), version_text(SEV_SINCE)
    return [f"{qemu.path}: QEMU {has} cannot start a guest in mode {mode}; it takes {takes} or later (Debian 13: 10.0)"]
