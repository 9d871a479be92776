# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""The real QEMU reads all that the owner gives."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.launcher.config.owner_kit import HOST_DATA, Call, Given, b64
from tests.launcher.launcher_kit import Out

# What QEMU 10 says when everything was understood and only the hardware is missing.
MISSING_HARDWARE = ("/dev/sev", "/dev/kvm", "KVM", "kvm", "SEV", "sev")
COMPLAINTS = (
    "not found", "Invalid parameter", "invalid option", "expects", "not a valid", "not equal", "exceeds",
    "Base64",
)  # fmt: skip


def run_qemu(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def qemu_words(out: Out, call: Call, qemu: Path, *words: object) -> list[str]:
    answer = call(
        "show", "--unbound", "--json", "--config", out.config, "--qemu", qemu, "--cbit", "51", *map(str, words)
    )
    assert answer.status == 0, answer.err
    argv: list[str] = json.loads(answer.out)["argv"]
    return argv


@pytest.fixture
def agent_socket(tmp_path: Path) -> object:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen(1)
        yield server


@pytest.mark.usefixtures("agent_socket")
def test_qemu_reads_id_block_and_host_data(tmp_path: Path, out: Out, call: Call, qemu: Path, given: Given) -> None:
    words = qemu_words(out, call, qemu, *given.pair, "--host-data", HOST_DATA.hex())
    done = run_qemu(words, tmp_path)
    assert done.returncode not in (0, None)
    assert any(word in done.stderr for word in MISSING_HARDWARE), done.stderr
    for complaint in COMPLAINTS:
        assert complaint not in done.stderr
    # Controls: QEMU decodes and measures each of them, so what it accepted above was right.
    for old, new, says in (
        (b64(given.block), b64(given.block[:-1]), "parameter length of 95 not equal to 96"),
        (b64(given.auth), b64(given.auth + b"x"), "parameter length:ID_AUTH 4097 exceeds max of 4096"),
        (b64(HOST_DATA), b64(HOST_DATA[:-1]), "parameter length of 31 not equal to 32"),
        (b64(given.block), "!" + b64(given.block)[1:], "Base64 data contains invalid characters"),
        ("author-key-enabled=on", "author-key-enabled=maybe", "author-key-enabled"),
        ("host-data=", "host-date=", "host-date"),
    ):
        spoilt = [word.replace(old, new) for word in words]
        assert spoilt != words
        assert says in run_qemu(spoilt, tmp_path).stderr


@pytest.mark.parametrize("mode", ["sev-es", "sev"])
@pytest.mark.usefixtures("agent_socket")
def test_qemu_reads_the_session_options(
    tmp_path: Path, out: Out, call: Call, qemu: Path, given: Given, mode: str
) -> None:
    words = qemu_words(out, call, qemu, "--mode", mode, *given.legacy)
    done = run_qemu(words, tmp_path)
    assert done.returncode not in (0, None)
    assert any(word in done.stderr for word in MISSING_HARDWARE), done.stderr
    for complaint in COMPLAINTS:
        assert complaint not in done.stderr
    for old in ("dh-cert-file=", "session-file="):
        spoilt = [word.replace(old, f"x{old}") for word in words]
        assert spoilt != words
        assert f"x{old[:-1]}" in run_qemu(spoilt, tmp_path).stderr
