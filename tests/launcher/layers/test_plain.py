# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Compressed archives: what is understood, by content alone; bombs and damage."""

import bz2
import gzip
import io
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.launcher.base.errors import UserError
from tools.launcher.layers.plain import plain
from tools.pipeline.engine.tree import Tree

DATA = b"layer" * 100_000


@pytest.fixture
def zstd(host_tool: Callable[..., Path], build_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], bytes]:
    """Compresses with the pinned zstd, which is then on PATH, too, for Pythons that have none."""
    program = host_tool("zstd", build_tree)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return lambda data: subprocess.run([program, "-q", "-c"], input=data, capture_output=True, check=True).stdout


def unpack(data: bytes, tmp_path: Path, *, limit: int = len(DATA)) -> bytes:
    spool = tmp_path / "spool"
    spool.unlink(missing_ok=True)
    stream, size = plain(io.BytesIO(data), size=len(data), spool=spool, limit=limit, where="layer")
    found = stream.read()
    assert len(found) == size
    return found


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("form", [*FORMS, "zstd"])
def test_what_comes_out_is_what_went_in_and_no_more_than_allowed(
    form: str, zstd: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    compress = FORMS.get(form, zstd)
    assert unpack(compress(DATA), tmp_path) == DATA
    with pytest.raises(UserError, match=rf"layer: (unpacks to|has \d+ bytes,) more than {len(DATA) - 1}"):
        unpack(compress(DATA), tmp_path, limit=len(DATA) - 1)


@pytest.mark.parametrize("form", ["gzip", "xz", "bzip2", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damage_is_one_line(form: str, damage: str, zstd: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = bytearray(FORMS.get(form, zstd)(DATA))
    if damage == "cut":
        del data[-20:]
    else:
        data[len(data) // 2] ^= 0xFF
    with pytest.raises(UserError, match="layer: cannot be decompressed: ") as caught:
        unpack(bytes(data), tmp_path)
    assert str(caught.value).isprintable()


def test_a_bomb_is_stopped_early(tmp_path: Path) -> None:
    """64 MiB of zeros in 64 KiB, of which no more than the limit is ever written."""
    many = gzip.compress(bytes(1 << 24)) * 4
    with pytest.raises(UserError, match="unpacks to more than 100000 bytes"):
        unpack(many, tmp_path, limit=100_000)
    assert (tmp_path / "spool").stat().st_size <= 100_000


def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 29}]
    with pytest.raises(UserError, match="cannot be decompressed"):
        unpack(lzma.compress(b"x", filters=filters), tmp_path)
    assert unpack(lzma.compress(b"x", preset=9), tmp_path) == b"x"


def test_zstd_without_a_program_says_what_to_do(
    zstd: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = zstd(DATA)
    monkeypatch.setattr("sys.version_info", (3, 13))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="layer: is compressed with zstd; install zstd, or use Python"):
        unpack(data, tmp_path)
