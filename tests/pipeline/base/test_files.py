# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of files; files are never half-written, and have the mode that was asked for."""

import os
from pathlib import Path

import pytest

from tools.pipeline.base import files


def test_of_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-4, example 1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.of_file(tmp_path / "f") == files.of_bytes(b"abc") == expected


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_mode_is_explicit(tmp_path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        files.write_atomically(tmp_path / "d/f", b"1", mode=0o755)
    finally:
        os.umask(previous)
    assert (tmp_path / "d/f").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("broken", ["fsync", "replace", "chmod"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "f"
    files.write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if broken == "fsync" else Path, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_write_if_changed_leaves_equal_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    files.write_if_changed(path, b"same")
    inode = path.stat().st_ino
    files.write_if_changed(path, b"same")
    assert path.stat().st_ino == inode
    files.write_if_changed(path, b"same", mode=0o755)
    assert path.stat().st_mode & 0o777 == 0o755
    files.write_if_changed(path, b"else", mode=0o755)
    assert path.read_bytes() == b"else"
