# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""out/qemu-lite: alone, from a place where only root may go, as the digest says, and up to the missing device."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.attack.guests.run import Guest
from tools.pipeline.guest import qemu as recipe

SEV = "cbitpos=51,reduced-phys-bits=1,kernel-hashes=on"


@pytest.fixture
def alone(artifacts: Path, tmp_path: Path) -> Path:
    """The artifacts in a folder of their own, into which only its owner may go."""
    folder = tmp_path / "alone"
    shutil.copytree(artifacts, folder)
    folder.chmod(0o700)
    return folder


def _said(program: Path, *words: str) -> str:
    done = subprocess.run(
        [program, *words], cwd="/", env={"LC_ALL": "C"}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_it_starts_guests(alone: Path, root_tar: Path) -> None:
    """With PATH empty of QEMUs, root's QEMU is nobody and yet runs what only root could reach by its path."""
    guest = Guest(launcher=alone / "sev-launch", qemu=None, rootfs=root_tar)
    done = guest.run(["sh", "-c", "echo up"], "--confined", "--unbound")
    assert (done.stdout, done.returncode) == (b"up\n", 0), done.stderr


def test_another_program_in_its_place(alone: Path, root_tar: Path) -> None:
    """One flipped bit is told, and nothing is started; without the file it is the host's QEMU, or none."""
    program = alone / recipe.NAME
    whole = program.read_bytes()
    program.chmod(0o755)
    program.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    guest = Guest(launcher=alone / "sev-launch", qemu=None, rootfs=root_tar)
    done = guest.run(["true"], "--unbound")
    assert done.returncode == 2
    assert b"qemu-lite (qemu): SHA-256 is" in done.stderr
    check = subprocess.run([alone / "sev-launch", "check"], capture_output=True, text=True, check=False)
    assert check.returncode == 1
    assert "qemu-lite" in check.stderr
    program.write_bytes(whole)
    assert subprocess.run([alone / "sev-launch", "check"], capture_output=True, check=False).returncode == 0
    program.unlink()
    programs = alone / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    path = {"PATH": str(programs)}
    done = subprocess.run(
        guest.argv(["true"], "--unbound"), env=os.environ | path, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, b"no qemu-system-x86_64 on PATH" in done.stderr) == (2, True), done.stderr


def test_protected_guests_are_started_up_to_the_missing_device(artifacts: Path) -> None:
    """The options of protected guests are known; what is missing is the accelerator's part. Control: a wrong one."""
    program = artifacts / recipe.NAME
    machine = ("-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-bios", str(artifacts / "OVMF.fd"))
    refusals = {"sev-snp-guest": "KVM required", "sev-guest": "accelerator does not support confidential guest"}
    for kind, policy in (("sev-snp-guest", "0x30000"), ("sev-guest", "0x3f")):
        given = f"{kind},id=sev0,{SEV},policy={policy}"
        words = ("-machine", "q35,confidential-guest-support=sev0", "-object", given)
        said = _said(program, *machine, *words)
        assert "Property" not in said
        assert refusals[kind] in said
        wrong = _said(program, *machine, *words[:2], "-object", f"{given},no-such-option=1")
        assert "no-such-option" in wrong
