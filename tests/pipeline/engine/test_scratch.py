# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A step's folder is private while it lives, and gone afterwards whatever the step left in it."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import scratch
from tools.pipeline.engine.store.merkle import Digest, File
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What no deletion may reach."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_text("untouched")
    place.chmod(0o555)
    yield place
    assert (place / "precious").read_text() == "untouched"
    assert oct(place.stat().st_mode) == "0o40555"


def modes(folder: Path) -> dict[str, str]:
    return {p.name: oct(p.stat().st_mode & 0o7777) for p in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_not_the_umasks(tmp_path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        with scratch.made(tmp_path / "scratch", "kernel") as made:
            assert oct(made.root.stat().st_mode) == oct(made.root.parent.stat().st_mode) == "0o40700"
            expected = {"inputs": "0o755", "build": "0o755", "out": "0o755", "taken": "0o755", ".lock": "0o600"}
            assert modes(made.root) == expected
            assert made.root.name.startswith("kernel-")
    finally:
        os.umask(previous)
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == [".lock"]


def test_a_failed_step_leaves_its_inputs_until_the_next_start(tmp_path: Path) -> None:
    parent = tmp_path / "scratch"

    def fail(error: BaseException) -> None:
        with scratch.made(parent, "kernel") as made:
            (made.inputs / "linux.tar").write_text("input")
            (made.build / "big").write_text("1.5 GB")
            raise error

    with pytest.raises(BuildError):
        fail(BuildError("failed"))
    (left,) = (p for p in parent.iterdir() if p.name != ".lock")
    assert {str(p.relative_to(left)) for p in left.rglob("*")} == {".lock", "inputs", "inputs/linux.tar"}
    scratch.sweep(parent)
    assert [p.name for p in parent.iterdir()] == [".lock"]
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert [p.name for p in parent.iterdir()] == [".lock"]


def _read_only(folder: Path, _: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/f").write_text("x")
    (folder / "a/b").chmod(0o555)
    (folder / "a").chmod(0)


def _deep(folder: Path, _: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _level in range(1500):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _links(folder: Path, outside: Path) -> None:
    (folder / "folder").symlink_to(outside)
    (folder / "file").symlink_to(outside / "precious")
    (folder / "loop").symlink_to("loop")


def _others(folder: Path, _: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / ".1").mkdir()
    (folder / ".2").write_text("the name of a folder on its way")
    (folder / "d/e").mkdir(parents=True)
    (folder / os.fsdecode(b"\xff\n")).mkdir()


@pytest.mark.parametrize("leave", [_read_only, _deep, _links, _others])
def test_everything_is_deleted(tmp_path: Path, outside: Path, leave: Callable[[Path, Path], None]) -> None:
    with scratch.made(tmp_path / "scratch", "s") as made:
        leave(made.build, outside)
        (made.out / "again").mkdir()
        leave(made.out / "again", outside)
        scratch.delete(made.out / "again")
        assert list(made.out.iterdir()) == []
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == [".lock"]


def test_what_a_real_step_leaves_is_deleted(tmp_path: Path, build_tree: Tree) -> None:
    script = "mkdir -p d/e; touch d/e/f; chmod 500 d/e; chmod 0 d; mkdir -m 0 /out/n; ln -s / /out/l"
    with scratch.made(tmp_path / "scratch", "s") as made:
        mounts = (
            Mount(host=made.build, inside="/build", writable=True),
            Mount(host=made.out, inside="/out", writable=True),
        )
        sandbox.output_of(Command(argv=("/bin/sh", "-euc", script), tree=build_tree.path, mounts=mounts))
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == [".lock"]


def test_a_long_deletion_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ui, "line", told.append)
    (tmp_path / "a/b/c").mkdir(parents=True)
    scratch.delete(tmp_path / "a")
    assert told == []
    (tmp_path / "a/b/c").mkdir(parents=True)
    monkeypatch.setattr(scratch, "_PATIENCE", -1.0)
    scratch.delete(tmp_path / "a")
    assert told == [f"   deleting {tmp_path}/a …"]


LIVING = """
import sys
from pathlib import Path
from tools.pipeline.engine import scratch
with scratch.made(Path(sys.argv[1]), "s") as made:
    (made.build / "f").write_text("x")
    print(made.root, flush=True)
    sys.stdin.read()
"""


def test_only_what_the_dead_left_is_swept(tmp_path: Path, repository: Path) -> None:
    parent = tmp_path / "scratch"
    argv = [sys.executable, "-c", LIVING, str(parent)]
    with subprocess.Popen(argv, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        root = Path(process.stdout.readline().decode().strip())
        (parent / "half-made").mkdir()
        scratch.sweep(parent)
        assert (root / "build/f").read_text() == "x"
        assert not (parent / "half-made").exists()
        process.send_signal(signal.SIGKILL)
    assert (root / "build/f").exists()
    scratch.sweep(parent)
    assert not root.exists()
    scratch.sweep(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o4755, 0o2755, 0o6700, 0o600, 0o1644])
def test_an_output_is_taken(tmp_path: Path, mode: int) -> None:
    with scratch.made(tmp_path, "s") as made:
        (made.out / "vmlinuz").write_bytes(b"kernel")
        (made.out / "vmlinuz").chmod(mode)
        if os.geteuid() == 0:
            shutil.chown(made.out / "vmlinuz", 65520, 65520)
            (made.out / "vmlinuz").chmod(mode)
        path, node = made.take("vmlinuz", title="linux")
        digest = Digest(sha256=hashlib.sha256(b"kernel").hexdigest(), size=6)
        assert node == File(digest=digest, executable=bool(mode & 0o100))
        status = path.stat()
        assert oct(status.st_mode) == ("0o100755" if mode & 0o100 else "0o100644")
        assert status.st_uid == os.geteuid()
        assert path.read_bytes() == b"kernel"
        assert list(made.out.iterdir()) == []


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_link, _folder, _fifo])
def test_what_is_no_file_is_not_taken(tmp_path: Path, make: Callable[[Path], None]) -> None:
    with scratch.made(tmp_path, "s") as made:
        make(made.out / "vmlinuz")
        with pytest.raises(BuildError, match="linux: its output vmlinuz is no regular file"):
            made.take("vmlinuz", title="linux")
        with pytest.raises(BuildError, match=r"linux: the step succeeded but left no OVMF\.fd"):
            made.take("OVMF.fd", title="linux")
