# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command on a host with SEV-SNP, which can only be made up here (machine.py); and each line when it is lied to.

Real guests, without SEV, are in test_real.py.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.conftest import OWN, REPOSITORY, Answer
from tests.launcher.launcher_kit import Out, facts
from tools.launcher.acceptance import probe, scenario, sizes
from tools.launcher.acceptance.model import Guest
from tools.launcher.acceptance.signer import Signer
from tools.launcher.acceptance.starts import Bench
from tools.launcher.channel.streams import Signals
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest import accelerators
from tools.launcher.guest.run_folder import RunDir
from tools.launcher.guest.spec import Accel
from tools.launcher.host.qemu_program import find_qemu

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


def stand_in(folder: Path, *lies: str) -> Path:
    """The made-up machine as a QEMU, which does not do these things as it should."""
    settings, program = folder / "settings.json", folder / "qemu"
    settings.write_text(json.dumps({"lies": lies}))
    module = "tests.launcher.acceptance.machine"
    program.write_text(f'#!/bin/sh\nexec env PYTHONPATH={REPOSITORY} {sys.executable} -m {module} {settings} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Answer]) -> Accept:
    """Run the command on the made-up host: its status, and the lines by check and guest."""
    header = bytearray(0x400)
    header[0x20E:0x210] = (0x100).to_bytes(2, "little")  # where a kernel's text for boot loaders is
    out = Out(tmp_path / "out", kernel=bytes(header))
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    monkeypatch.setattr(sizes, "TRIES", 1)
    monkeypatch.setattr(sizes, "SIZES", (64 << 10,))

    def run(*lies: str, mode: str = "snp", timeout: int = 30) -> tuple[int, dict[tuple[str, str], dict[str, str]]]:
        program, result = stand_in(tmp_path, *lies), tmp_path / "result.json"
        answer = call(
            "acceptance", "--config", out.config, "--mode", mode, "--accel", "kvm", "--qemu", program,
            "--qemu-user", OWN, "--timeout", str(timeout), "--json", result,
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
    assert lines["id-block-signature", "snp"]["seen"] == "SNP_LAUNCH_FINISH: error 10, Bad signature"
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
            ("report", "device", "memory", "bounce", "program"),
            {"launch-digest", "platform-device", "memory-closed", "bounce-buffers", "starts"},
            {"bounce-buffers", "starts"},
        ),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_said(accept: Accept, lies: tuple[str, ...], snp: set[str], plain: set[str]) -> None:
    """Some defences are missing at a time, none near another: their lines fail, and no other."""
    status, lines = accept(*lies)
    assert status == 1
    assert results(lines, "snp", "failed") - {"qemu-user"} == snp, lines
    assert results(lines, "unprotected", "failed") - {"qemu-user"} == plain, lines


def test_a_launcher_that_lies_is_found_out(accept: Accept, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that changes nothing, has every door open, and looks for another marker than the guest's."""
    document = probe.document
    unchanged = tuple((step, lambda _: None) for step, _ in scenario._BLOBS)
    monkeypatch.setattr(scenario, "_BLOBS", unchanged)
    monkeypatch.setattr(probe, "document", lambda tar, **_: document(tar, commands=True))
    monkeypatch.setattr(probe, "MASK", 0x16)
    status, lines = accept(mode="unprotected")
    changed = {"changed-kernel", "changed-initramfs", "changed-cmdline"}
    assert results(lines, "unprotected", "failed") - {"qemu-user"} == {*changed, "exec-refused", "memory-read"}, lines
    assert status == 1


def test_a_guest_that_hangs_is_a_failed_line(accept: Accept) -> None:
    """And the command ends."""
    status, lines = accept("hangs", mode="unprotected", timeout=1)
    assert status == 1
    assert results(lines, "unprotected", "held") == set()
    assert lines["starts", "unprotected"]["seen"] == "it did not start: nothing within the time"
    assert results(lines, "unprotected", "failed") == {*PLAIN, "qemu-user"}


def test_a_program_that_does_not_end_did_not_run_to_its_end(accept: Accept) -> None:
    """Beside one that ends with another status, above."""
    _, lines = accept("mute", mode="unprotected", timeout=10)
    line = lines["starts", "unprotected"]
    assert line["result"] == "failed"
    assert line["seen"] == "it came up, and then: the program in the guest did not end within 10 s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    out, program = Out(tmp_path / "out"), stand_in(tmp_path, "hangs")
    argv: list[str | Path] = [
        sys.executable, "-m", "tools.launcher", "acceptance", "--config", out.config, "--mode", "unprotected",
        "--accel", "tcg", "--qemu", program, "--qemu-user", OWN, "--json", tmp_path / "r.json",
    ]  # fmt: skip
    left = tmp_path / "tmp"
    with subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().endswith("a bound guest, and what is seen of it\n")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (qemu := children.read_text().split()) or not list(left.glob("sev-launch-*/agent.sock")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(left.iterdir()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in qemu)
    assert not (tmp_path / "r.json").exists()


def test_kvm_is_tried_once_where_nobody_has(tmp_path: Path) -> None:
    """And not again: the second answer comes without a guest."""
    out, program = Out(tmp_path / "out"), stand_in(tmp_path)
    config = load_config(out.config)
    own = tuple(map(int, OWN.split(":")))
    notes: list[str] = []
    with Signals() as signals, RunDir() as folder:
        root, tar = probe.root(folder.path)
        bench = Bench(
            config=config, qemu=find_qemu(str(program), user=(own[0], own[1])), facts=facts(), accel=Accel.TCG,
            timeout=60, signals=signals, folder=folder.path, root=root, tar=tar, signer=Signer(), note=notes.append,
        )  # fmt: skip
        spec = bench.spec(Guest.PLAIN, probe.document(tar, commands=True))
        for _ in range(2):
            found = accelerators.settled(
                spec, root=root, facts=bench.facts, signals=signals, timeout=60, note=notes.append
            )  # fmt: skip
            assert found is Accel.KVM
    assert [note for note in notes if "trying KVM" in note] == notes[:1] == notes
