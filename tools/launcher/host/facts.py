# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What this host offers: devices, CPU, kernel parameters. Facts are gathered once, then judged purely."""

import os
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.host.cpuid import MemoryEncryption, memory_encryption
from tools.sev.modes import Mode

_PARAMETERS = ("sev", "sev_es", "sev_snp", "debug_swap")
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
