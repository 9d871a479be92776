# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify REPORT` by the one packed file, with and without the package cryptography."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher.attest.verify_kit import Desk, draft
from tests.launcher.conftest import REPOSITORY
from tools.pipeline.publish import pack_launcher


def packed(folder: Path) -> Path:
    path = folder / "sev-launch"
    path.write_bytes(pack_launcher.pack(REPOSITORY / "tools"))
    path.chmod(0o755)
    return path


def test_the_one_file_without_cryptography_says_not_checked(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setenv("PATH", f"{bare}/bin:/usr/bin:/bin")
    done = subprocess.run(
        [packed(tmp_path), "verify", *desk.words(draft())], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = [line for line in done.stdout.splitlines() if "  signature " in line]
    assert line.startswith("not checked  signature")
    assert "cryptography" in line
    assert done.stdout.splitlines()[-1].startswith("not verified: signature not checked; ")


def test_the_one_file_with_cryptography_verifies(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    for program in ([packed(tmp_path)], [sys.executable, packed(tmp_path)]):
        words = [*program, "verify", *desk.words(draft())]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("\nverified\n")
