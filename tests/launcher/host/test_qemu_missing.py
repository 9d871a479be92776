# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A QEMU that is not there, or cannot be run: which one, and what to do next."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.config.runtime_config import load_config
from tools.launcher.host import qemu_program
from tools.launcher.host.qemu_program import chosen_qemu
from tools.runtime.config.settings import QEMU_OPTION

OWN = b"#!/bin/sh\necho QEMU emulator version 10.2.2\n"
INSTALL = "install Debian's qemu-system-x86 or give"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH is this folder, in which no QEMU is."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(qemu_program, "_QEMU_EXTRA", ())
    return folder


def says(out: Out, option: str = "--qemu PATH") -> str:
    with pytest.raises(UserError) as caught:
        chosen_qemu(None, load_config(out.config), option=option)
    return str(caught.value)


@pytest.mark.usefixtures("bare")
def test_the_one_that_the_config_names_is_not_there(tmp_path: Path, call: Callable[..., Answer]) -> None:
    out = Out(tmp_path / "out", qemu=OWN)
    program = out.folder / "qemu-lite"
    program.chmod(0o755)
    assert chosen_qemu(None, load_config(out.config)).version == (10, 2, 2)
    program.unlink()
    what = f"{program}: is not there, though runtime.toml names it, and there is no qemu-system-x86_64 on PATH"
    hint = f"put it back (./doit build makes it), or {INSTALL}"
    assert says(out) == f"{what}; {hint} --qemu PATH"
    assert says(out, option=QEMU_OPTION) == f'{what}; {hint} qemu = "PATH" in sev-runtime.toml'
    answer = call("run", "--unprotected", "--unbound", "--config", out.config, "--rootfs", tmp_path, "--", "true")
    assert (answer.status, what in answer.one_line()) == (2, True)


def test_the_hosts_is_taken_where_it_is_not_there(bare: Path, tmp_path: Path) -> None:
    out = Out(tmp_path / "out", qemu=OWN)
    (out.folder / "qemu-lite").unlink()
    other = bare / "qemu-system-x86_64"
    other.write_bytes(OWN.replace(b"2.2", b"0.1"))
    other.chmod(0o755)
    assert chosen_qemu(None, load_config(out.config)).path == str(other)


@pytest.mark.usefixtures("bare")
def test_one_that_is_named_nowhere(tmp_path: Path) -> None:
    assert says(Out(tmp_path / "out")) == f"no qemu-system-x86_64 on PATH; {INSTALL} --qemu PATH"


def test_what_is_in_its_place(tmp_path: Path) -> None:
    out = Out(tmp_path / "out", qemu=OWN)
    program = out.folder / "qemu-lite"
    program.chmod(0o644)
    assert says(out) == f"{program}: is no QEMU that runs here (Permission denied); chmod +x {program}"
    program.unlink()
    program.mkdir()
    assert says(out) == f"{program} (qemu): no regular file; rebuild with ./doit build, or restore the file"
    program.rmdir()
    os.mkfifo(program)
    assert "no regular file; rebuild" in says(out)


def test_one_that_is_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(no answer\); give another with --qemu PATH"):
        chosen_qemu("true", None)
    program = tmp_path / "a program"
    program.write_bytes(OWN)
    with pytest.raises(UserError, match=r"no executable file; chmod \+x '.*/a program' if it is a QEMU, else install"):
        chosen_qemu(str(program), None)
    with pytest.raises(UserError, match=r"--qemu /none: no executable file; install .* give --qemu PATH"):
        chosen_qemu("/none", None)
    with pytest.raises(UserError, match=r"^qemu /none: no executable file; install .* sev-runtime\.toml"):
        chosen_qemu("/none", None, option=QEMU_OPTION)
    program.chmod(0o755)
    assert chosen_qemu(str(program), None).path == str(program)
