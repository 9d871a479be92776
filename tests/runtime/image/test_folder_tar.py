# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Host folders as archives: what is kept, what is left out, and that nothing of elsewhere gets in."""

import os
import re
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.launcher.base.errors import UserError
from tools.launcher.guest import tar_check
from tools.runtime.image import folders
from tools.runtime.image.folders import folder_tar

LIMIT = 1 << 20


class Packed:
    """What lies in the archive of a folder."""

    def __init__(self, source: Path, place: Path, *, limit: int = LIMIT) -> None:
        self.notes: list[str] = []
        self.target = place / "folder.tar"
        self.target.unlink(missing_ok=True)
        self.copied = folder_tar(source, self.target, limit=limit, note=self.notes.append)
        self.archive = tarfile.open(self.target, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        self.names = self.archive.getnames()

    def read(self, name: str) -> bytes:
        stream = self.archive.extractfile(name)
        assert stream is not None
        return stream.read()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "d/e").mkdir(parents=True)
    (place / "d/f").write_bytes(b"content")
    os.chown(place / "d/f", 7, 8)
    (place / "d/f").chmod(0o4640)
    return place


def test_what_is_kept(source: Path, tmp_path: Path) -> None:
    os.link(source / "d/f", source / "z")
    (source / "link").symlink_to("/etc/passwd")
    os.utime(source / "d/f", ns=(1_700_000_000_500_000_000,) * 2)
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff" + b"n" * 200))).write_bytes(bytes(5000))
    packed = Packed(source, tmp_path)
    long = os.fsdecode(b"data/\xff" + b"n" * 200)
    assert packed.names == ["data", "data/d", "data/d/e", "data/d/f", "data/link", "data/z", long]
    file = packed.archive.getmember("data/d/f")
    assert (file.mode, file.uid, file.gid, file.mtime) == (0o4640, 7, 8, 1_700_000_000)
    assert packed.read("data/d/f") == b"content"
    assert packed.archive.getmember("data/z").linkname == "data/d/f"
    assert packed.archive.getmember("data/link").linkname == "/etc/passwd"
    assert packed.read(long) == bytes(5000)
    assert (packed.copied.entries, packed.copied.size) == (7, 4 * 4096)
    assert packed.target.stat().st_mode & 0o777 == 0o600
    assert not packed.notes
    # The agent takes it.
    tar_check.check(packed.target, where="here", memory_mib=64)


def test_one_file(source: Path, tmp_path: Path) -> None:
    """And the link at the very top is followed, as mount(2) does."""
    (tmp_path / "link").symlink_to(source / "d/f")
    for path in (source / "d/f", tmp_path / "link"):
        packed = Packed(path, tmp_path)
        assert packed.names == ["data"]
        assert packed.read("data") == b"content"


def test_what_is_left_out(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    (source / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "mounted"], check=True)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(source / "socket"))
            packed = Packed(source, tmp_path)
    finally:
        subprocess.run(["umount", source / "mounted"], check=True)
    assert packed.names == ["data", "data/d", "data/d/e", "data/d/f"]
    assert packed.notes == [
        f"{source}: 'fifo' left out: fifo",
        f"{source}: 'mounted' left out: another file system is mounted there",
        f"{source}: 'null' left out: device",
        f"{source}: 'socket' left out: socket",
    ]


@pytest.mark.parametrize(("path", "kind"), [("/dev/null", "device"), ("fifo", "fifo")])
def test_what_no_copy_can_stand_for(tmp_path: Path, path: str, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match=f"is a {kind}, for which no copy can stand; mount a folder or a file"):
        Packed(tmp_path / path, tmp_path)
    assert not (tmp_path / "folder.tar").exists()


def test_the_limit(source: Path, tmp_path: Path) -> None:
    """Of bytes, in pages as the guest's tmpfs counts them, and of entries."""
    (source / "large").write_bytes(bytes(9 * 4096 - 1))
    Packed(source, tmp_path, limit=10 * 4096)
    with pytest.raises(UserError, match="more than fits into 40959 bytes: 5 entries, 40960 bytes so far; allow more"):
        Packed(source, tmp_path, limit=10 * 4096 - 1)
    assert not (tmp_path / "folder.tar").exists()
    (source / "large").unlink()
    for number in range(36):
        (source / f"f{number}").touch()
    Packed(source, tmp_path, limit=32 << 10)
    with pytest.raises(UserError, match="more than fits into 31744 bytes: 40 entries, 4096 bytes so far"):
        Packed(source, tmp_path, limit=31 << 10)


def test_deep_folders(source: Path, tmp_path: Path) -> None:
    deep = source
    for _ in range(folders.DEPTH_MAX - 1):
        deep /= "x"
    deep.mkdir(parents=True)
    Packed(source, tmp_path)
    (deep / "x").mkdir()
    with pytest.raises(UserError, match=f"has folders more than {folders.DEPTH_MAX} deep"):
        Packed(source, tmp_path)


def _file_to_link(source: Path) -> None:
    (source / "d/f").unlink()
    (source / "d/f").symlink_to("/etc/passwd")


def _folder_to_link(source: Path) -> None:
    (source / "d").rename(source / "was")
    (source / "d").symlink_to("/etc")


def _file_to_fifo(source: Path) -> None:
    (source / "d/f").unlink()
    os.mkfifo(source / "d/f")


def _another(source: Path) -> None:
    (source / "new").write_bytes(b"another")
    (source / "new").rename(source / "d/f")


@pytest.mark.parametrize("change", [_file_to_link, _folder_to_link, _file_to_fifo, _another])
def test_what_changes_meanwhile(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """Between the look at a name and its opening: whoever owns the folder cannot lead the reader elsewhere."""
    real = os.stat
    done: list[bool] = []

    def stat(path: Any, **more: Any) -> os.stat_result:
        status: os.stat_result = real(path, **more)
        if path == (b"d" if change is _folder_to_link else b"f") and not done:
            done.append(True)
            change(source)
        return status

    monkeypatch.setattr("tools.runtime.image.folders.os.stat", stat)
    with pytest.raises(UserError, match=r"changed while it was read; try again|symbolic links|Not a directory"):
        Packed(source, tmp_path)
    assert done
    assert not (tmp_path / "folder.tar").exists()


def test_a_file_that_shrinks(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_size == len(b"content"):
            os.truncate(source / "d/f", 3)
        return status

    monkeypatch.setattr("tools.runtime.image.folders.os.fstat", fstat)
    with pytest.raises(UserError, match=re.escape(f"{source}: 'd/f' changed while it was read")):
        Packed(source, tmp_path)
