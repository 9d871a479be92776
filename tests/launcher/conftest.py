# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the launcher's tests: made-up artifacts, the stand-in for QEMU and agent, ways to run it."""

import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launcher.attest.verify_kit import Desk, Root, digests_document
from tests.launcher.launcher_kit import Out
from tools.launcher.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
OWN = f"{os.geteuid()}:{os.getegid()}"
"""For --qemu-user: the stand-in lies where only this user may go."""


@pytest.fixture(autouse=True)
def private_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, and each sees the temporary folders that it left."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("STANDIN", "STANDIN_LOG", "STANDIN_VERSION", "STANDIN_NO_SANDBOX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def out(tmp_path: Path) -> Out:
    return Out(tmp_path / "out")


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """A root file system that only has to look like one."""
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("bin"))
    return path


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    """QEMU and agent in one script."""
    path = tmp_path / "qemu-standin"
    root = Path(__file__).parents[2]
    path.write_text(f'#!/bin/sh\nexec env PYTHONPATH={root} {sys.executable} -m tests.launcher.standin "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    out: str
    err: str

    def one_line(self) -> str:
        """The error, when it is exactly one line of the launcher's and no traceback."""
        lines = [line for line in self.err.splitlines() if "UNPROTECTED" not in line]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("sev-launch: ")
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the launcher in this process."""

    def run(*words: str | os.PathLike[str]) -> Answer:
        capfd.readouterr()
        status = main([os.fspath(word) for word in words])
        captured = capfd.readouterr()
        return Answer(status=status, out=captured.out, err=captured.err)

    return run


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def command(out: Out, standin: Path, tar: Path) -> Callable[..., list[str]]:
    """The words that start the launcher with the stand-in."""

    def words(*argv: str, options: Sequence[str] = ("--accel", "tcg"), bound: bool = False) -> list[str]:
        run = ["run", "--config", str(out.config), "--unprotected", "--qemu", str(standin), "--qemu-user", OWN]
        if not bound:
            run.append("--unbound")
        return [sys.executable, "-m", "tools.launcher", *run, "--rootfs", str(tar), *options, "--", *argv]

    return words


@pytest.fixture
def run(command: Callable[..., list[str]]) -> Run:
    """Run a workload through launcher and stand-in, in processes of their own."""

    def call(
        *argv: str,
        options: Sequence[str] = ("--accel", "tcg"),
        stdin: bytes = b"",
        bound: bool = False,
        **env: str,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command(*argv, options=options, bound=bound),
            input=stdin,
            capture_output=True,
            cwd=REPOSITORY,
            env=os.environ | env,
            timeout=120,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def root() -> Root:
    """A root of trust in AMD's place; RSA keys of 4096 bits take seconds to make."""
    return Root()


@pytest.fixture
def desk(out: Out, tmp_path: Path, root: Root, call: Callable[..., Answer]) -> Desk:
    """Config and launch digests as a build leaves them, and a report with its certificates."""
    (out.folder / "launch-digests.json").write_text(json.dumps(digests_document()))
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(folder=folder, config=out.config, root=root, call=call)
