# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Launch digests of the built artifacts: sev-launch beside the command sev-snp-measure."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def sev_launch(artifacts: Path, *words: str) -> str:
    done = subprocess.run([artifacts / "sev-launch", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sev_snp_measure(artifacts: Path, mode: str, cmdline: str, *words: str) -> str:
    argv = [
        *(sys.executable, "-m", "sevsnpmeasure.cli", "--mode", mode),
        *("--ovmf", str(artifacts / "OVMF.fd"), "--kernel", str(artifacts / "vmlinuz")),
        *("--initrd", str(artifacts / "initramfs.cpio.zst"), "--append", cmdline),
    ]
    done = subprocess.run([*argv, *words], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--cpus", "48"],
        ["--cpu", "EPYC-Genoa", "--cpus", "3"],
        ["--cpu-signature", "0xb00f21"],
        ["--append", "sev_agent.log=1"],
    ],
    ids=" ".join,
)
def test_the_launcher_and_sev_snp_measure_agree(artifacts: Path, words: list[str]) -> None:
    found: dict[str, Any] = json.loads(
        sev_launch(artifacts, "digest", "--unbound", "--mode", "all", "--json", "--quiet", *words)
    )
    digests = {(d["mode"], d["legacy_vm_type"]): d["digest"] for d in found["digests"]}
    vcpu = ["--vcpus", str(found["vcpus"]), "--vcpu-sig", found["cpu_signature"]]
    cmdline = found["kernel_cmdline"]
    assert digests["snp", None] == sev_snp_measure(artifacts, "snp", cmdline, *vcpu)
    assert digests["sev-es", False] == sev_snp_measure(artifacts, "seves", cmdline, *vcpu)
    assert digests["sev", None] == sev_snp_measure(artifacts, "sev", cmdline)
    assert digests["sev-es", True] not in {d for key, d in digests.items() if key != ("sev-es", True)}


def test_the_file_is_in_order_and_listed(artifacts: Path) -> None:
    assert "launch digests in order" in sev_launch(artifacts, "check")
    assert "  launch-digests.json\n" in (artifacts / "SHA256SUMS").read_text()
    table = json.loads((artifacts / "launch-digests.json").read_text())
    printed = sev_launch(artifacts, "digest", "--unbound", "--mode", "snp")
    assert printed.startswith(f"{table['configured']['digests']['snp']}  snp, ")
