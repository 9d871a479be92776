# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The built launcher, config and digests against the report that a processor would give for that guest."""

import base64
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.attest.attestation_kit import TCB, Draft
from tests.launcher.attest.verify_kit import NONCE, Root
from tools.launcher.attest.measurement import Platform, expected_mac

Verify = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def config(artifacts: Path) -> dict[str, Any]:
    return tomllib.loads((artifacts / "runtime.toml").read_text())


@pytest.fixture(scope="module")
def modes(artifacts: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifacts / "launch-digests.json").read_bytes())["modes"]
    return found


@pytest.fixture
def verify(artifacts: Path) -> Verify:
    """out/sev-launch verify, with what lies beside it."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, artifacts / "sev-launch", "verify", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_the_report_of_the_built_guest(
    verify: Verify, config: dict[str, Any], modes: dict[str, Any], root: Root, tmp_path: Path
) -> None:
    for name, data in (("vcek", root.vcek().der), ("ask", root.ask.der), ("ark", root.ark.der)):
        (tmp_path / name).write_bytes(data)
    certificates = [word for name in ("vcek", "ask", "ark") for word in (f"--{name}", tmp_path / name)]
    levels = ",".join(f"{part}={level}" for part, level in TCB.items())
    policy = config["sev"]["snp"]["policy"]
    for model, vcpus in (("EPYC", 1), ("EPYC-Milan", 4), ("EPYC-Turin", 64)):
        digest = bytes.fromhex(modes["snp"]["digests"][model][str(vcpus)])
        for measurement, status in ((digest, 0), (digest[:-1] + bytes((digest[-1] ^ 1,)), 1)):
            draft = Draft(measurement=measurement, policy=policy, report_data=NONCE)
            (tmp_path / "report.bin").write_bytes(draft.raw(root.leaf_key))
            words = [
                tmp_path / "report.bin",
                "--unbound",
                "--report-data",
                NONCE.hex(),
                "--min-tcb",
                levels,
                *certificates,
            ]
            done = verify(*words)
            assert (done.returncode, done.stderr) == (status, ""), done.stdout
            plural = "" if vcpus == 1 else "s"
            assert (f"launch digest      {model}, {vcpus} vCPU{plural}\n" in done.stdout) is (status == 0)


@pytest.mark.parametrize("mode", ["sev", "sev-es"])
def test_the_launch_measurement_of_the_built_guest(
    verify: Verify, config: dict[str, Any], modes: dict[str, Any], tmp_path: Path, mode: str
) -> None:
    table = modes[mode]
    text = table["digest"] if mode == "sev" else table["legacy-vm-type=off"]["EPYC"]["2"]
    tik, nonce, platform = bytes(range(16)), b"n" * 16, Platform(api_major=1, api_minor=55, build=21)
    (tmp_path / "tik").write_bytes(tik)
    mac = expected_mac(
        tik=tik,
        platform=platform,
        policy=config["sev"][mode]["policy"],
        digest=bytes.fromhex(text),
        mnonce=nonce,
    )
    base = [
        "--unbound",
        "--mode",
        mode,
        "--tik",
        tmp_path / "tik",
        "--api-major",
        "1",
        "--api-minor",
        "55",
        "--build",
        "21",
    ]
    for blob, status in ((mac + nonce, 0), (mac + b"m" * 16, 1)):
        done = verify("--measurement", base64.b64encode(blob).decode(), *base)
        assert (done.returncode, done.stderr) == (status, ""), done.stdout
