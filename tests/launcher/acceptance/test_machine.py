# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command on a host with SEV-SNP, which can only be made up here (machine.py); and each line when it is lied to.

Real guests, without SEV, are in test_real.py.
"""

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.conftest import OWN, REPOSITORY, Answer
from tests.launcher.launcher_kit import Out, facts
from tools.launcher.acceptance import sizes

SNP = {
    "starts", "kernel-says", "launch-digest", "policy", "id-block-accepted", "id-block-digest", "id-block-signature",
    "changed-kernel", "changed-initramfs", "changed-cmdline", "exec-refused", "bounce-buffers", "platform-device",
    "memory-closed",
}  # fmt: skip
PLAIN = {
    "starts", "id-block-machinery", "changed-kernel", "changed-initramfs", "changed-cmdline", "exec-refused",
    "bounce-buffers", "memory-read",
}  # fmt: skip
NOT_RUN = {"signed-report", "policy-enforced", "injected-events", "hypervisor-reset"}
Accept = Callable[..., tuple[int, dict[tuple[str, str], dict[str, str]]]]


@pytest.fixture
def accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Answer]) -> Accept:
    """Run the command on the made-up host: its status, and the lines by check and guest."""
    header = bytearray(0x400)
    header[0x20E:0x210] = (0x100).to_bytes(2, "little")  # where a kernel's text for boot loaders is
    out = Out(tmp_path / "out", kernel=bytes(header))
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    monkeypatch.setattr(sizes, "TRIES", 1)
    monkeypatch.setattr(sizes, "SIZES", (64 << 10,))

    def run(*lies: str, mode: str = "snp") -> tuple[int, dict[tuple[str, str], dict[str, str]]]:
        settings, program, result = (tmp_path / name for name in ("settings.json", "qemu", "result.json"))
        settings.write_text(json.dumps({"lies": lies}))
        module = "tests.launcher.acceptance.machine"
        program.write_text(
            f'#!/bin/sh\nexec env PYTHONPATH={REPOSITORY} {sys.executable} -m {module} {settings} "$@"\n'
        )  # fmt: skip
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        answer = call(
            "acceptance", "--config", out.config, "--mode", mode, "--accel", "kvm", "--qemu", program,
            "--qemu-user", OWN, "--timeout", "20", "--json", result,
        )  # fmt: skip
        assert result.exists(), answer.err
        found: dict[str, Any] = json.loads(result.read_bytes())
        return answer.status, {(line["name"], line["guest"]): line for line in found["checks"]}

    return run


def results(lines: dict[tuple[str, str], dict[str, str]], guest: str, result: str) -> set[str]:
    return {name for (name, of), line in lines.items() if of == guest and line["result"] == result}


def test_all_of_it(accept: Accept) -> None:
    status, lines = accept()
    assert results(lines, "snp", "held") == SNP, lines
    assert results(lines, "unprotected", "held") == PLAIN, lines
    assert results(lines, "snp", "not run") == NOT_RUN
    # The stand-in has no seccomp filter, and is whoever runs the tests.
    assert results(lines, "snp", "failed") == results(lines, "unprotected", "failed") == {"qemu-user"}
    assert status == 1
    assert results(lines, "sev", "not run") >= {"starts", "launch-digest"}
    assert lines["starts", "sev"]["seen"] == "--mode snp was given"
    assert lines["changed-kernel", "snp"]["seen"] == "SNP_LAUNCH_FINISH: error 11, Bad measurement"
    assert lines["id-block-signature", "snp"]["seen"] == "SNP_LAUNCH_FINISH: error 4, Bad signature"
    assert "no certificate given" in lines["signed-report", "snp"]["seen"]


@pytest.mark.parametrize(
    ("lies", "snp", "plain"),
    [
        (
            ("firmware", "processor", "kernel", "agent"),
            {
                "id-block-digest", "id-block-signature", "changed-kernel", "changed-initramfs", "changed-cmdline",
                "kernel-says", "exec-refused",
            },
            {"changed-kernel", "changed-initramfs", "changed-cmdline", "exec-refused"},
        ),
        (
            ("report", "device", "memory", "bounce"),
            {"launch-digest", "platform-device", "memory-closed", "bounce-buffers"},
            {"bounce-buffers"},
        ),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_said(accept: Accept, lies: tuple[str, ...], snp: set[str], plain: set[str]) -> None:
    """Four defences are missing at a time, none near another: their lines fail, and no other."""
    status, lines = accept(*lies)
    assert status == 1
    assert results(lines, "snp", "failed") - {"qemu-user"} == snp, lines
    assert results(lines, "unprotected", "failed") - {"qemu-user"} == plain, lines
