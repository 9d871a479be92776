# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch show` for people and for programs."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.launcher.config.conftest import given
from tests.launcher.config.owner_kit import Given, b64
from tests.launcher.conftest import REPOSITORY, Answer
from tests.launcher.launcher_kit import Out

__all__ = ["given"]  # a fixture
Call = Callable[..., Answer]


def test_people_are_spared_the_base64(out: Out, standin: Path, given: Given) -> None:
    """On a terminal; a pipe or a file gets what can be pasted into a shell."""
    words = ["show", "--unbound", "--config", str(out.config), "--qemu", str(standin), "--cbit", "51", *given.pair]
    command = [sys.executable, "-m", "tools.launcher", *words]
    whole = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert b64(given.auth) in whole
    master, terminal = os.openpty()
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=terminal)
    os.close(terminal)
    seen = b""
    # EIO: the program has ended, and with it the terminal's other end.
    with contextlib.suppress(OSError):
        while piece := os.read(master, 65536):
            seen += piece
    os.close(master)
    assert process.wait(60) == 0
    text = seen.decode().replace("\r\n", "\n")
    assert f"id-auth={b64(given.auth)[:16]}…{len(b64(given.auth))} characters" in text
    assert b64(given.block) in text  # 128 characters are still shown
    assert max(map(len, text.splitlines())) < 500
    assert len(text.splitlines()) == len(whole.splitlines())


def test_what_a_policy_leaves_open_is_said(out: Out, standin: Path, call: Call) -> None:
    """For each protected start; of the policies that are built nothing is said, nor of a guest without any."""

    def warnings(*words: str) -> list[str]:
        show = ["show", "--unbound", "--config", str(out.config), "--qemu", str(standin), "--cbit", "51"]
        answer = call(*show, *words)
        assert answer.status == 0
        return [line for line in answer.err.splitlines() if "open to its host" in line]

    modes = ("snp", "sev-es", "sev")
    assert [warnings("--mode", mode) for mode in modes] == [[], [], []]
    sev = out.data["sev"]
    sev["snp"]["policy"], sev["sev-es"]["policy"], sev["sev"]["policy"] = 0x70000, 0x2D, 0x1
    out.write()
    said = "sev-launch: the policy of mode {} leaves the guest open to its host: {}: "
    for mode, names in (("snp", ["migrate"]), ("sev-es", ["key-sharing"]), ("sev", ["key-sharing", "send"])):
        found = warnings("--mode", mode, "--quiet")
        assert len(found) == len(names)
        for line, name in zip(found, names, strict=True):
            assert line.startswith(said.format(mode, name))
    assert warnings("--unprotected") == []
