# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What this host offers: devices, CPU, kernel parameters. Facts are gathered once, then judged purely."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.guest.command_line import SEV_SINCE, QemuProgram, Version, sandbox_option
from tools.launcher.host.cpuid import MemoryEncryption, memory_encryption
from tools.sev.modes import Mode

QEMU_NAMES = ("qemu-system-x86_64", "qemu-system-amd64", "qemu-kvm")
_QEMU_EXTRA = ("/usr/libexec/qemu-kvm",)
_PARAMETERS = ("sev", "sev_es", "sev_snp", "debug_swap")
_INSTALL = "install Debian's qemu-system-x86 or give --qemu PATH"
_MODE_PARAMETER = {Mode.SEV: "sev", Mode.SEV_ES: "sev_es", Mode.SNP: "sev_snp"}


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """Device fields hold None when the device can be opened, else the reason why not.

    `parameters` are those of kvm_amd that exist, as the kernel prints them.
    """

    kvm_error: str | None
    sev_error: str | None
    encryption: MemoryEncryption | None
    parameters: dict[str, str]

    def enabled(self, parameter: str) -> bool:
        """Whether a boolean kvm_amd parameter is on."""
        return self.parameters.get(parameter) in ("Y", "1")


def gather() -> HostFacts:
    """Look at this host."""
    parameters = {}
    for name in _PARAMETERS:
        try:
            text = Path("/sys/module/kvm_amd/parameters", name).read_text("ascii", "replace")
        except OSError:
            continue
        parameters[name] = text.strip()[:32]
    return HostFacts(
        kvm_error=_open_error("/dev/kvm"),
        sev_error=_open_error("/dev/sev"),
        encryption=memory_encryption(),
        parameters=parameters,
    )


def _open_error(path: str) -> str | None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or "cannot be opened"
    return None


def obstacles(facts: HostFacts, mode: Mode) -> list[str]:
    """Why a guest cannot be started under `mode` on this host; empty when nothing stands against it."""
    reasons = []
    encryption = facts.encryption
    has = (
        encryption is not None
        and {
            Mode.SEV: encryption.sev,
            Mode.SEV_ES: encryption.sev and encryption.sev_es,
            Mode.SNP: encryption.sev and encryption.snp,
        }[mode]
    )
    if encryption is None:
        reasons.append("the CPU reports no memory encryption (CPUID 0x8000001F)")
    elif not has:
        reasons.append(f"the CPU does not report {_NAMES[mode]} (CPUID 0x8000001F)")
    elif encryption.cbit == 0:
        reasons.append("the CPU reports no C-bit position (CPUID 0x8000001F)")
    if facts.kvm_error is not None:
        reasons.append(f"/dev/kvm: {facts.kvm_error}")
    parameter = _MODE_PARAMETER[mode]
    if not facts.enabled(parameter):
        value = facts.parameters.get(parameter)
        reasons.append(f"kvm_amd.{parameter} is {value}" if value is not None else f"kvm_amd has no {parameter}")
    if facts.sev_error is not None:
        reasons.append(f"/dev/sev: {facts.sev_error}")
    return reasons


_NAMES = {Mode.SEV: "SEV", Mode.SEV_ES: "SEV-ES", Mode.SNP: "SEV-SNP"}


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
            [path, *sandbox_option(), "-machine", "none", "-device", "loader,help"],
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


def require_version(qemu: QemuProgram, mode: Mode) -> None:
    """UserError when this QEMU is too old for a protected guest."""
    if qemu.version < SEV_SINCE:
        raise UserError(
            f"QEMU {version_text(qemu.version)} cannot start a guest in mode {mode} as this config pins it",
            where=qemu.path,
            hint=f"it takes {version_text(SEV_SINCE)} or later (Debian 13 has 10.0)",
        )
