# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The packed launcher: the same bytes everywhere, and it runs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.pipeline.publish import pack_launcher

REPOSITORY = Path(__file__).resolve().parents[3]
MODULES = {
    "__init__.py": '"""A package."""\n',
    "launcher/__init__.py": "",
    "launcher/__main__.py": "raise SystemExit(99)\n",
    "launcher/boot.py": (REPOSITORY / "tools/launcher/boot.py").read_text(),
    "launcher/cli/__init__.py": "",
    "launcher/cli/main.py": (
        "import sys\nfrom tools.sev.word import WORD\ndef main():\n print(WORD, sys.argv[1:], __file__)\n return 7\n"
    ),
    "sev/__init__.py": "",
    "sev/word.py": "WORD = 'hello' if 'x' in {'x', 'y', 'z'} else ''\n",
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


def pack(package: Path, file: Path, *flags: str, **env: str) -> bytes:
    """As the build's step does it: the one program, in a process of its own."""
    program = Path(pack_launcher.__file__)
    subprocess.run([sys.executable, *flags, program, package.parent, file], cwd=file.parent, env=env, check=True)
    return file.read_bytes()


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=cwd,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("start", [[], ["sh"], [sys.executable], [sys.executable, "-I", "-S"]])
def test_runs_as_one_executable_file(package: Path, tmp_path: Path, start: list[str]) -> None:
    file = tmp_path / "else where/sev-launch"
    file.parent.mkdir()
    pack(package, file)
    done = run(*start, file, "a b", "--b", "'", cwd=tmp_path)
    said = f"hello ['a b', '--b', \"'\"] {file}/tools/launcher/cli/main.py\n"
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 7)
    # Nothing may be written beside it: out/ can be read-only.
    assert [p.name for p in file.parent.iterdir()] == ["sev-launch"]


def test_contents(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    data = pack(package, file)
    assert data.startswith(b"#!/bin/sh\n")
    assert file.stat().st_mode & 0o777 == 0o755
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert archive.read("tools/sev/word.py") == MODULES["sev/word.py"].encode()
    assert [i.filename for i in infos] == [
        "__main__.py",
        "tools/__init__.py",
        *(f"tools/{name}" for name in sorted(MODULES) if name != "__init__.py"),
        f"bytecode/{sys.implementation.cache_tag}.bin",
        "bytecode/index.bin",
    ]
    for info in infos:
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert info.compress_type == zipfile.ZIP_STORED
        assert (info.create_system, info.external_attr >> 16, info.extra) == (3, 0o100644, b"")


def test_same_bytes_whatever_the_machine(package: Path, tmp_path: Path) -> None:
    first = pack(package, tmp_path / "first", PYTHONHASHSEED="1", LC_ALL="C")
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
    # Optimised or not: bytecode is what the packing asks for.
    assert pack(other, tmp_path / "deep/second", "-OO", "-X", "dev", PYTHONHASHSEED="2") == first
    assert pack_launcher.pack(other) == first
    (other / "sev/word.py").write_text("WORD = 'hallo'\n")
    assert pack(other, tmp_path / "third") != first


def test_an_old_python_is_told_so(package: Path, tmp_path: Path) -> None:
    """The check stands before the imports; a fake version stands for an old interpreter."""
    file = tmp_path / "sev-launch"
    pack(package, file)
    start = file.read_text("latin-1").partition("-c '\n")[2].partition('\' "$0"')[0]
    fake = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 (x)'\n"
    done = subprocess.run([sys.executable, "-c", fake + start, file], capture_output=True, text=True, check=False)
    assert done.stderr == "sev-launch: needs Python 3.11 or later, this is 3.9.2\n"
    assert done.returncode == 1
    done = subprocess.run([sys.executable, "-c", start, file], capture_output=True, text=True, check=False)
    assert done.returncode == 7
