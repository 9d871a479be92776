# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What this host can do: CPUID, obstacles, QEMU's version, and what is remembered of KVM."""

from pathlib import Path

import pytest

from tests.launcher.launcher_kit import Out, facts
from tools.launcher.config.runtime_config import load_config
from tools.launcher.host import kvm_trial
from tools.launcher.host.cpuid import MemoryEncryption, _execute, decode, memory_encryption
from tools.launcher.host.facts import obstacles
from tools.launcher.host.qemu_program import QemuProgram, parse_version
from tools.sev.modes import Mode


def test_obstacles() -> None:
    for mode in Mode:
        assert obstacles(facts(), mode) == []
        assert "CPUID 0x8000001F" in obstacles(facts(encryption=None), mode)[0]
        assert obstacles(facts(kvm_error="Permission denied"), mode) == ["/dev/kvm: Permission denied"]
        assert obstacles(facts(parameters={}), mode)[0].startswith("kvm_amd has no sev")
    rome = MemoryEncryption(sev=True, sev_es=True, snp=False, cbit=47, reduced_phys_bits=1)
    assert obstacles(facts(encryption=rome), Mode.SEV_ES) == []
    assert obstacles(facts(encryption=rome), Mode.SNP) == ["the CPU does not report SEV-SNP (CPUID 0x8000001F)"]
    off = {"sev": "Y", "sev_es": "N", "sev_snp": "0"}
    assert obstacles(facts(parameters=off), Mode.SEV_ES) == ["kvm_amd.sev_es is N"]
    assert obstacles(facts(parameters=off), Mode.SNP) == ["kvm_amd.sev_snp is 0"]
    assert obstacles(facts(parameters=off), Mode.SEV) == []


def test_cpuid_leaf() -> None:
    found = decode(0x0101_FD3F, 0x0000_4173)
    assert found == MemoryEncryption(sev=True, sev_es=True, snp=True, cbit=51, reduced_phys_bits=5)
    assert decode(0x2, 0x6F).cbit == 47

    def amd(leaf: int, *, vendor: bytes = b"AuthenticAMD", highest: int = 0x80000023) -> tuple[int, int, int, int]:
        words = [int.from_bytes(vendor[i : i + 4], "little") for i in (0, 4, 8)]
        if leaf == 0:
            return (16, words[0], words[2], words[1])
        return (highest, 0, 0, 0) if leaf == 0x80000000 else (0x1A, 0x73, 0, 0)

    assert memory_encryption(amd) == MemoryEncryption(sev=True, sev_es=True, snp=True, cbit=51, reduced_phys_bits=1)
    assert memory_encryption(lambda leaf: amd(leaf, vendor=b"GenuineIntel")) is None
    assert memory_encryption(lambda leaf: amd(leaf, highest=0x8000001E)) is None


def test_executing_cpuid_agrees_with_proc_cpuinfo() -> None:
    _, ebx, ecx, edx = _execute(0)
    vendor = b"".join(part.to_bytes(4, "little") for part in (ebx, edx, ecx)).decode()
    assert f": {vendor}\n" in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", (7, 2, 22)),
        ("QEMU emulator version 10.0.13 (Debian)", (10, 0, 13)),
        ("QEMU emulator version 10.1 (x)", (10, 1, 0)),
        ("busybox", None),
    ],
)
def test_versions(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


def test_a_verdict_on_a_qemu_whose_name_is_no_text(out: Out) -> None:
    config = load_config(out.config)
    qemu = QemuProgram(path="/opt/\udcff/qemu", version=(10, 0, 0), sandbox=True)
    assert kvm_trial.recall(qemu, config) is None
    kvm_trial.remember(qemu, config, works=True)
    assert kvm_trial.recall(qemu, config) is True
