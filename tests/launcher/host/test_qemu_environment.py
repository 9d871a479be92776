# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What QEMU knows of the environment of whoever starts it: nothing."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import OWN, Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.host.qemu_program import ENVIRONMENT

# In QEMU's place: answers with its own environment, and so does the guest that it never starts.
FAKE = """\
#!{python} -I
import os, sys
with open({log!r}, "ab") as log:
    log.write(open("/proc/self/environ", "rb").read() + b"\\n")
if "-version" in sys.argv:
    print("QEMU emulator version 10.0.13")
elif "loader,help" not in sys.argv:
    sys.exit("no guest here")
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def fake(tmp_path: Path, log: Path) -> Path:
    path = tmp_path / "qemu"
    path.write_text(FAKE.format(python=sys.executable, log=str(log)))
    path.chmod(0o755)
    return path


def environments(log: Path) -> list[dict[bytes, bytes]]:
    """Of each start: of those that ask for version and filter, and of the guest's."""
    found = []
    for line in log.read_bytes().splitlines():
        entries = [entry.partition(b"=") for entry in line.split(b"\0") if entry]
        found.append({name: value for name, _, value in entries})
    return found


@pytest.fixture
def start(call: Callable[..., Answer], out: Out, fake: Path, tar: Path) -> Callable[[], Answer]:
    words = ["run", "--unprotected", "--unbound", "--accel", "tcg", "--config", str(out.config), "--qemu", str(fake)]
    return lambda: call(*words, "--qemu-user", OWN, "--rootfs", str(tar), "--", "true")


def test_a_variable_of_the_launcher_is_not_in_qemu(
    start: Callable[[], Answer], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("LD_PRELOAD", "")
    answer = start()
    assert answer.status == 125
    assert "no guest here" in answer.err
    assert os.environ["SECRET_TOKEN"] == "hunter2"
    names = [set(found) for found in environments(log)]
    assert len(names) == 3
    assert names == [{b"LC_ALL", b"PATH"}] * 3


def test_what_is_handed_on_is_seen(start: Callable[[], Answer], log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same look at the same places finds a variable that was given to QEMU."""
    monkeypatch.setitem(ENVIRONMENT, "SECRET_TOKEN", "hunter2")
    start()
    assert [found.get(b"SECRET_TOKEN") for found in environments(log)] == [b"hunter2"] * 3
