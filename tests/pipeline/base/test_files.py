# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Folder digests see what a build step could see, and nothing else; files are never half-written."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError


def fill(root: Path, *, reverse: bool = False) -> Path:
    """The same members, made in one order or the other."""
    made: list[Callable[[], object]] = [
        lambda: (root / "a").write_text("content a"),
        lambda: (root / "b.sh").write_text("#!/bin/sh\n"),
        lambda: (root / "link").symlink_to("a"),
        (root / "empty").mkdir,
        (root / "sub").mkdir,
        lambda: (root / "subx").write_text("x"),
    ]
    root.mkdir(parents=True)
    for make in reversed(made) if reverse else made:
        make()
    (root / "sub/deep").write_text("deep")
    (root / os.fsdecode(b"caf\xe9")).write_text("a name that is not UTF-8")
    (root / "b.sh").chmod(0o755)
    return root


def test_known_value(tmp_path: Path) -> None:
    # Written out: every store key depends on the format, so a change of it is a change of this line.
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "l").symlink_to("f")
    content = hashlib.sha256(b"x").hexdigest().encode()
    expected = hashlib.sha256(b"d d\0\n" + b"f f\0" + content + b"\0\n" + b"l l\0f\0\n").hexdigest()
    assert files.of_folder(tmp_path) == expected


def test_independent_of_order_times_owner_bits_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fill(tmp_path / "one")
    second = fill(tmp_path / "deep/er/two", reverse=True)
    os.utime(second / "a", (1, 1))
    (second / "a").chmod(0o600)
    (second / "b.sh").chmod(0o700)
    value = files.of_folder(first)
    assert files.of_folder(second) == value
    # A file system may give any order: turn it round.
    real = os.scandir

    class Reversed:
        def __init__(self, path: bytes) -> None:
            self._entries = real(path)

        def __enter__(self) -> Iterator[os.DirEntry[bytes]]:
            return iter(sorted(self._entries, key=lambda e: e.name, reverse=True))

        def __exit__(self, *_: object) -> None:
            self._entries.close()

    monkeypatch.setattr(os, "scandir", Reversed)
    assert files.of_folder(first) == value


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda r: (r / "a").write_text("content b"), id="content"),
        pytest.param(lambda r: (r / "sub/deep").write_text("Deep"), id="content-below"),
        pytest.param(lambda r: (r / "a").rename(r / "c"), id="name"),
        pytest.param(lambda r: (r / "b.sh").chmod(0o644), id="executable-bit"),
        pytest.param(lambda r: (r / "link").unlink() or (r / "link").symlink_to("b.sh"), id="target"),
        pytest.param(lambda r: (r / "link").unlink() or (r / "link").write_text("a"), id="link-to-file"),
        pytest.param(lambda r: (r / "empty").rmdir(), id="empty-folder"),
        pytest.param(lambda r: (r / "sub/deep").rename(r / "deep"), id="place"),
        pytest.param(lambda r: (r / "new").touch(), id="new"),
    ],
)
def test_sees_each_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = fill(tmp_path / "x")
    before = files.of_folder(root)
    change(root)
    assert files.of_folder(root) != before


def test_refuses_what_has_no_content(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    with pytest.raises(BuildError, match="neither a file, a folder nor a link"):
        files.of_folder(tmp_path)


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
