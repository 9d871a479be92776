# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guests whose QEMU ends before its agent speaks, and modes that are not there: what is said, and what begun anew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.launcher.acceptance.test_machine import stand_in
from tests.launcher.conftest import OWN, REPOSITORY, Answer
from tests.launcher.launcher_kit import Out, facts

HOW = "QEMU ended before its agent spoke (status 3): qemu: the timer is late"
BLOBS = {"changed-kernel", "changed-initramfs", "changed-cmdline"}
KERNEL = bytes(0x20E) + (0x100).to_bytes(2, "little") + bytes(0x200)
"""It says where its text for boot loaders is, of which hostile.py changes a bit."""
Accept = Callable[..., tuple[Answer, dict[str, Any]]]


@pytest.fixture
def accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Answer]) -> Accept:
    """The command for the unprotected guest on the made-up machine: its answer, and what it wrote."""
    out = Out(tmp_path / "out", kernel=KERNEL)
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    schema = json.loads((REPOSITORY / "docs/schemas/acceptance.schema.json").read_bytes())

    def run(*lies: str, accel: str) -> tuple[Answer, dict[str, Any]]:
        program, result = stand_in(tmp_path, *lies), tmp_path / "result.json"
        answer = call(
            "acceptance", "--config", out.config, "--mode", "unprotected", "--accel", accel, "--qemu", program,
            "--qemu-user", OWN, "--timeout", "30", "--json", result,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(result.read_bytes())
        Draft202012Validator(schema).validate(found)
        return answer, found

    return run


def lines(found: dict[str, Any], result: str) -> dict[str, str]:
    return {
        line["name"]: line["seen"]
        for line in found["checks"]
        if line["guest"] == "unprotected" and line["result"] == result
    }


def test_an_emulated_guest_is_begun_anew_once_and_that_is_said(accept: Accept) -> None:
    answer, found = accept("ends-once", accel="tcg")
    # The others are test_machine.py's: on a busy machine they may fail of themselves.
    assert lines(found, "held").keys() >= {"starts", "exec-refused"}, found
    assert found["begun_anew"] == {"unprotected": [f"honest: {HOW}"]}
    assert "begun anew, once" in answer.out
    assert answer.err.count(": begun anew") == 1
    assert "SECURITY.md" in answer.out


def test_not_a_second_time(accept: Accept) -> None:
    """And each line that needs the guest has its cause."""
    answer, found = accept("ends", accel="tcg")
    assert answer.status == 1
    assert found["begun_anew"] == {"unprotected": [f"honest: {HOW}", f"open: {HOW}"]}
    failed = lines(found, "failed")
    assert failed["starts"] == f"it did not start: {HOW}"
    for name in (*BLOBS, "exec-refused"):
        assert HOW in failed[name]


def test_not_on_kvm(accept: Accept) -> None:
    answer, found = accept("ends-once", accel="kvm")
    assert lines(found, "failed")["starts"] == f"it did not start: {HOW}"
    assert found["begun_anew"] == {}
    assert "begun anew" not in answer.out + answer.err


def test_not_where_a_changed_guest_ends(accept: Accept) -> None:
    """That is a result: it was not the firmware that refused it."""
    answer, found = accept("ends-changed", accel="tcg")
    failed = lines(found, "failed")
    assert failed.keys() >= BLOBS
    assert "starts" not in failed
    for name in BLOBS:
        assert "it was not the firmware that refused it: QEMU ended before its agent spoke" in failed[name]
    assert found["begun_anew"] == {}
    assert "begun anew" not in answer.out + answer.err


def test_a_mode_that_is_not_there_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Answer]
) -> None:
    """One line, at once. Control: where the mode is there, guests are started; this one's QEMU ends."""
    out, program = Out(tmp_path / "out", kernel=KERNEL), stand_in(tmp_path, "ends")
    words = [
        "acceptance", "--config", out.config, "--mode", "snp", "--accel", "kvm", "--qemu", program, "--qemu-user", OWN,
        "--json", tmp_path / "result.json",
    ]  # fmt: skip
    monkeypatch.setattr("tools.launcher.host.facts.gather", lambda: facts(sev_error="No such file or directory"))
    answer = call(*words)
    assert (answer.status, answer.out) == (1, "")
    assert answer.one_line() == (
        "sev-launch: --mode snp: this host has no guests of this mode: /dev/sev: No such file or directory; "
        "`sev-launch acceptance --mode unprotected` shows what any machine can"
    )
    started = tmp_path / "settings.json.ended"
    assert not started.exists()
    assert not (tmp_path / "result.json").exists()
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    assert call(*words).status == 1
    assert started.exists()
