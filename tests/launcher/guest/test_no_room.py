# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A full place is named, and not the file that was on its way there."""

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import REPOSITORY
from tests.launcher.launcher_kit import Out

LARGE = bytes(range(256)) * (12 << 10)  # 3 MiB


def run(words: list[str], folder: Path, *, size: int) -> subprocess.CompletedProcess[bytes]:
    """With a file system of `size` bytes for what a run makes; in a mount namespace of its own."""
    bwrap = shutil.which("bwrap")
    assert bwrap is not None, "bubblewrap is what the builds run in"
    small = ["--size", str(size), "--tmpfs", str(folder), "--setenv", "TMPDIR", str(folder)]
    argv = [bwrap, "--dev-bind", "/", "/", *small, "--", *words]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, check=False, timeout=60)


def large_kernel(out: Out, folder: Path) -> list[str | Path]:
    (out.folder / "vmlinuz").write_bytes(LARGE)
    digest = hashlib.sha256(LARGE).hexdigest()
    out.data["artifacts"]["kernel"] = {"file": "vmlinuz", "sha256": digest, "size": len(LARGE)}
    out.write()
    return []


def large_directory(out: Out, folder: Path) -> list[str | Path]:
    (folder / "root").mkdir()
    (folder / "root/large").write_bytes(LARGE)
    return ["--rootfs", folder / "root"]


def large_archive(out: Out, folder: Path) -> list[str | Path]:
    large_directory(out, folder)
    subprocess.run(["tar", "-cf", folder / "x.tar", "-C", folder / "root", "."], check=True)
    (folder / "x.tar.gz").write_bytes(gzip.compress((folder / "x.tar").read_bytes()))
    return ["--rootfs", folder / "x.tar.gz"]


PLACES = [large_kernel, large_directory, large_archive]


@pytest.mark.parametrize("make", PLACES)
@pytest.mark.parametrize("limit", ["file system", "file size"])
def test_the_full_place_is_named(
    out: Out, command: Callable[..., list[str]], tmp_path: Path, make: Callable[..., list[str | Path]], limit: str
) -> None:
    options = ["--accel", "tcg", *(os.fspath(word) for word in make(out, tmp_path))]
    words = command("true", options=options)
    folder = tmp_path / "small"
    folder.mkdir()
    limited = ["sh", "-c", 'ulimit -f 1000; exec "$@"', "sh", *words] if limit == "file size" else words
    done = run(limited, folder, size=64 << 20 if limit == "file size" else 1 << 20)
    (line,) = [line for line in done.stderr.decode().splitlines() if "UNPROTECTED" not in line]
    assert done.returncode == 2
    assert line.startswith(f"sev-launch: {folder}/sev-launch-")
    assert ("File too large" if limit == "file size" else "No space left on device") in line
    assert line.endswith("; point TMPDIR to a folder with room")
    # The control: the same with room enough.
    assert run(words, folder, size=64 << 20).returncode == 0
