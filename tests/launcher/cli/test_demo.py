# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch demo` where guests are encrypted, which only hardware can do: docker and its guest are made up.

tests/boot/test_demo.py has real guests, and tests/engines/ real engines.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import REPOSITORY, Answer

SIM = f"env PYTHONPATH={REPOSITORY} {sys.executable} -m tests.launcher.memory.sim"
DOCKER = """\
#!/bin/sh
case "$1" in
info) echo '{{"sev-runtime":{{}}}}' ;;
inspect) cat {log}.pid ;;
run)
    echo $$ >{log}.pid
    exec {sim} {kind} unknown -m 64M -append "what the kernel was told, at some length" -object {object} ;;
esac
"""


@pytest.fixture
def demo(tmp_path: Path, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Answer]:
    def run(kind: str, object_: str) -> Answer:
        program = tmp_path / "bin/docker"
        program.parent.mkdir(exist_ok=True)
        text = DOCKER.format(log=tmp_path / "log", sim=SIM, kind=kind, object=object_)
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return call("demo")

    return run


def test_ciphertext(demo: Callable[[str, str], Answer]) -> None:
    """And the exit status tells."""
    answer = demo("cipher-talks", "sev-guest,id=sev0")
    assert (answer.status, answer.err) == (0, ""), answer.out
    assert "Memory Encryption Features active: AMD SEV" in answer.out
    assert (
        "In use: what was just sent to the guest lies in them, at 0x2001000, within 0x2000000-0x2400000." in answer.out
    )
    assert "\n   ciphertext: what the host gave is there, the marker is not, and " in answer.out
    assert answer.out.endswith("what the guest shares. It does not read the guest's own memory.\n")


def test_not_accessible(demo: Callable[[str, str], Answer]) -> None:
    answer = demo("shared-memfd-talks", "sev-snp-guest,id=snp0")
    assert answer.status == 0, answer.out
    assert "\n   not accessible: the guest shares a few pages; the others are not in QEMU's memory" in answer.out


def test_nothing_shown(demo: Callable[[str, str], Answer]) -> None:
    """Where the marker is not found, and the rest looks like any memory, nothing is claimed."""
    answer = demo("plain-talks", "sev-guest,id=sev0")
    assert answer.status == 1
    assert answer.out.endswith("\nNothing was shown.\n")
