# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher's zip application: the same bytes everywhere, and it runs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.pipeline.publish import launcher_pack

MODULES = {
    "__init__.py": '"""A package."""\n',
    "launcher/__init__.py": "",
    "launcher/__main__.py": "raise SystemExit(99)\n",
    "launcher/cli/__init__.py": "",
    "launcher/cli/main.py": (
        "import sys\nfrom tools.sev.word import WORD\ndef main():\n print(WORD, sys.argv[1:])\n return 7\n"
    ),
    "sev/__init__.py": "",
    "sev/word.py": "WORD = 'hello'\n",
}


def make(folder: Path, *, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODULES[name])
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A made-up launcher."""
    return make(tmp_path / "tools", names=list(MODULES))


def run(file: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [file, *args],
        cwd=cwd,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_runs_as_one_executable_file(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere/sev-launch"
    file.parent.mkdir()
    file.write_bytes(launcher_pack.pack(package))
    file.chmod(0o755)
    done = run(file, "a", "--b", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("hello ['a', '--b']\n", "", 7)
    # Nothing may be written beside it: out/ can be read-only.
    assert [p.name for p in file.parent.iterdir()] == ["sev-launch"]


def test_contents(package: Path, tmp_path: Path) -> None:
    data = launcher_pack.pack(package)
    assert data.startswith(b"#!/usr/bin/env python3\nPK\x03\x04")
    file = tmp_path / "x.zip"
    file.write_bytes(data)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
    assert [i.filename for i in infos] == [
        "__main__.py",
        "tools/__init__.py",
        "tools/launcher/__init__.py",
        "tools/launcher/__main__.py",
        "tools/launcher/cli/__init__.py",
        "tools/launcher/cli/main.py",
        "tools/sev/__init__.py",
        "tools/sev/word.py",
    ]
    for info in infos:
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert info.compress_type == zipfile.ZIP_STORED
        assert (info.create_system, info.external_attr >> 16, info.extra) == (3, 0o100644, b"")


def test_same_bytes_whatever_the_machine(package: Path, tmp_path: Path) -> None:
    first = launcher_pack.pack(package)
    previous = os.umask(0o077)
    try:
        other = make(tmp_path / "deep/tools", names=list(reversed(MODULES)))
    finally:
        os.umask(previous)
    (other / "sev/__pycache__").mkdir()
    (other / "sev/__pycache__/word.cpython-311.pyc").write_bytes(b"compiled")
    (other / "sev/notes.txt").write_text("no module")
    (other / "launcher/cli/main.py").chmod(0o755)
    os.utime(other / "launcher/cli/main.py", (1e9, 1e9))
    assert launcher_pack.pack(other) == first
    (other / "sev/word.py").write_text("WORD = 'hallo'\n")
    assert launcher_pack.pack(other) != first


def test_an_old_python_is_told_so(package: Path, tmp_path: Path) -> None:
    """The check stands before the imports; a fake version stands for an old interpreter."""
    file = tmp_path / "sev-launch"
    file.write_bytes(launcher_pack.pack(package))
    code = (
        "import sys, runpy; sys.version_info = (3, 9, 2); sys.version = '3.9.2 (x)';"
        f"runpy.run_path({str(file)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "sev-launch: needs Python 3.11 or later, this is 3.9.2\n"
    assert done.returncode == 1
