# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""--rootfs: how much room on this host it may take."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.guest.test_rootfs import archive, erofs_header
from tools.launcher.base.errors import UserError
from tools.launcher.channel.protocol import RootKind
from tools.launcher.guest import rootfs


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_what_is_decompressed_has_a_bound(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """By default the guest's RAM; an image that the guest need not hold in it may have more, if that is said."""
    source, into = tmp_path / "x", tmp_path / "into"
    source.write_bytes(compress(erofs_header(blocks=33 << 8)))
    assert source.stat().st_size < 1 << 20
    for given, limit in ((32, None), (128, 32)):
        into.mkdir()
        with pytest.raises(UserError, match=r"x \(decompressed\): takes more than 32 MiB.*--rootfs-limit SIZE"):
            rootfs.prepare(source, into=into, memory_mib=given, note=print, limit_mib=limit)
        assert sum(path.stat().st_size for path in into.iterdir()) <= 32 << 20
        shutil.rmtree(into)
    for given, limit in ((33, None), (32, 33)):
        into.mkdir()
        assert rootfs.prepare(source, into=into, memory_mib=given, note=print, limit_mib=limit).length == 33 << 20
        shutil.rmtree(into)


def test_a_pipe_and_a_directory_have_the_same_bound(tmp_path: Path) -> None:
    """What has no end, and a file that has none of the bytes that it says."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "root").mkdir()
    with (tmp_path / "root/holes").open("wb") as stream:
        stream.truncate(1 << 40)
    words = ["sh", "-c", f"exec cat /dev/zero 2>/dev/null >{tmp_path}/fifo"]
    with subprocess.Popen(words), pytest.raises(UserError, match="fifo: takes more than 8 MiB"):
        rootfs.prepare(tmp_path / "fifo", into=tmp_path, memory_mib=512, note=print, limit_mib=8)
    with pytest.raises(UserError, match="root: takes more than 512 MiB"):
        rootfs.prepare(tmp_path / "root", into=tmp_path, memory_mib=512, note=print)
    (tmp_path / rootfs._TAR).unlink()
    os.truncate(tmp_path / "root/holes", 1 << 20)
    assert rootfs.prepare(tmp_path / "root", into=tmp_path, memory_mib=512, note=print).kind is RootKind.TAR


def test_the_members_of_a_tar_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "x.tar", "a", "b", "c")
    monkeypatch.setattr("tools.launcher.guest.tar_check.ENTRIES_MAX", 3)
    assert rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print).path == source
    monkeypatch.setattr("tools.launcher.guest.tar_check.ENTRIES_MAX", 2)
    with pytest.raises(UserError, match="has more than 2 members; make an EROFS image"):
        rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print)


@pytest.mark.parametrize(
    ("record", "fits"),
    [
        (b"13 size=0003\n", True),
        (b"9" * 5000, True),
        (b"000000013" + b"0" * 5000 + b" size=3\n", True),
        (b"size", False),
    ],
    ids=["honest", "no-record", "long-length", "long-size"],
)
def test_numbers_of_a_tar_have_any_length(tmp_path: Path, record: bytes, *, fits: bool) -> None:
    if record == b"size":
        record = b"5012 size=" + b"9" * 5001 + b"\n"
    source = tmp_path / "x.tar"
    with tarfile.open(source, "w") as tar:
        extended, member = tarfile.TarInfo("pax"), tarfile.TarInfo("a")
        extended.type, extended.size, member.size = tarfile.XHDTYPE, len(record), 3
        tar.addfile(extended, io.BytesIO(record))
        tar.addfile(member, io.BytesIO(b"abc"))
    if fits:
        assert rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print).path == source
        return
    with pytest.raises(UserError, match="truncated"):
        rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print)
