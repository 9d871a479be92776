# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit: starts at once in a finished environment, names what is missing in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import copy_all


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy that borrows the environment that the tests run in."""
    root = copy_all(repository, tmp_path / "checkout")
    environment = root / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/doit").write_text(f'#!/bin/sh\nexec {sys.executable} -m doit "$@"\n')
    (environment / "bin/doit").chmod(0o755)
    shutil.copy(root / "requirements.lock", environment / "requirements.lock")
    return root


def _start(root: Path, *words: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "doit", *words],
        cwd="/",
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _path_without(tmp_path: Path, *missing: str) -> str:
    """A folder with the programs that the wrapper may need, except those; `id` says: not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # Not the python3 on PATH, which may be a shim that needs a shell and tools of its own.
    (folder / "python3").symlink_to(Path(sys.base_prefix) / "bin/python3")
    for name in ("sh", "dirname", "cmp", "bwrap", "apt-cache", "rm", "cp", "tail"):
        found = shutil.which(name)
        if found is not None and name not in missing:
            (folder / name).symlink_to(found)
    (folder / "id").write_text("#!/bin/sh\necho 1000\n")
    (folder / "id").chmod(0o755)
    return str(folder)


def test_a_finished_environment_is_used_as_it_is(checkout: Path) -> None:
    """From any working directory; nothing is said, nothing is set up."""
    done = _start(checkout, "list", path=os.environ["PATH"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "build" in done.stdout


def test_arguments_and_status_go_through(checkout: Path) -> None:
    """What doit says is what the wrapper says."""
    done = _start(checkout, "info", "no such task", path=os.environ["PATH"])
    assert done.returncode != 0
    assert "no such task" in done.stderr + done.stdout


def test_a_missing_host_package_is_one_line(checkout: Path, tmp_path: Path) -> None:
    """Without the right to install it: the command that would, and status 2."""
    done = _start(checkout, "list", path=_path_without(tmp_path, "bwrap"))
    assert done.returncode == 2
    assert done.stderr == "doit: host packages are missing; run: sudo apt-get install bubblewrap\n"
    assert done.stdout == ""
