# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch doctor`: what it finds, and its verdict."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out, facts
from tools.launcher.host.qemu_program import ENVIRONMENT

Call = Callable[..., Answer]


def test_doctor_on_a_host_with_everything(out: Out, call: Call, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    answer = call("doctor", "--json", "--quiet", "--config", out.config, "--qemu", standin)
    document = json.loads(answer.out)
    assert answer.status == 0, answer.out
    assert set(document) == {"schema", "asked", "can_run", "reasons", "checks"}
    assert document["can_run"] is True
    assert document["reasons"] == []
    names = [check["name"] for check in document["checks"]]
    for name in (
        "config",
        "kernel",
        "QEMU",
        "/dev/kvm",
        "/dev/sev",
        "CPU",
        "kvm_amd.sev_snp",
        "guest on KVM",
        "verdict",
    ):
        assert name in names
    remembered = json.loads(call("doctor", "--json", "--quiet", "--config", out.config, "--qemu", standin).out)
    assert any("earlier since this host booted" in check["detail"] for check in remembered["checks"])


def test_doctor_says_what_is_missing(out: Out, call: Call, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = facts(kvm_error="No such device", sev_error="No such device", encryption=None, parameters={})
    monkeypatch.setattr("tools.launcher.host.facts.gather", lambda: bare)
    answer = call("doctor", "--config", out.config, "--qemu", standin)
    assert answer.status == 1
    lines = answer.out.splitlines()
    verdict = next(i for i, line in enumerate(lines) if line.startswith("no  verdict"))
    assert lines[verdict].endswith(
        "mode snp: no guest can run here; `doctor --unprotected` asks for one without protection"
    )
    assert "/dev/sev: No such device" in [line.strip() for line in lines[verdict + 1 :]]  # each on its own line
    answer = call("doctor", "--unprotected", "--quiet", "--config", out.config, "--qemu", standin)
    assert answer.status == 0
    assert "reached its agent in" in answer.out
    monkeypatch.setitem(ENVIRONMENT, "STANDIN", "dies")
    answer = call("doctor", "--unprotected", "--quiet", "--config", out.config, "--qemu", standin)
    assert answer.status == 1


def test_doctor_without_artifacts_or_qemu(tmp_path: Path, call: Call) -> None:
    answer = call("doctor", "--quiet", "--config", tmp_path / "none", "--qemu", "/no/such")
    assert answer.status == 1
    assert answer.out.startswith("no  config")
    assert answer.err == ""


def test_doctor_on_this_host(out: Out, call: Call, standin: Path) -> None:
    answer = call("doctor", "--json", "--quiet", "--config", out.config, "--qemu", standin)
    document = json.loads(answer.out)
    assert document["can_run"] is (answer.status == 0)
    present = {check["name"]: check["ok"] for check in document["checks"]}
    assert present["/dev/sev"] is os.access("/dev/sev", os.R_OK | os.W_OK)
