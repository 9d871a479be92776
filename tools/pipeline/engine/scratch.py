# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A step's private folder: what it is given, where it works, what it leaves.

    PARENT/NAME-xxxxxxxx/          mode 0700, ours: nobody else sees or changes anything below
                        /inputs    private copies of the step's inputs, put there by the caller
                        /build     the step's, writable
                        /out       the step's, writable
                        /taken     outputs, ours, as they are and with modes that we gave them
                        /.lock     held while its owner lives

PARENT is in the checkout, never in a cache that others share: what is hashed here is what the step wrote.
"""

import errno
import fcntl
import hashlib
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.merkle import Digest, File

_LOCK = ".lock"
_PATIENCE = 2.0  # seconds that deleting may take without a word
_THREADS = 16  # that delete; they wait for the disk, not for a processor
_SOME = 16 << 20  # bytes of a disk that is not full
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """The folders of one run of a step."""

    root: Path

    @property
    def inputs(self) -> Path:
        """For the caller. The step is somebody else when we are root: files must be readable to all."""
        return self.root / "inputs"

    @property
    def build(self) -> Path:
        """The step's working folder, unless it works in memory."""
        return self.root / "build"

    @property
    def out(self) -> Path:
        """Where the step puts its outputs."""
        return self.root / "out"

    def has_space(self) -> bool:
        """Whether the disk that it lies on is not full."""
        return shutil.disk_usage(self.root).free >= _SOME

    def empty_out(self) -> None:
        """Make /out anew: what a run left that is tried again."""
        delete(self.out)
        _folder(self.out)

    def take(self, name: str, *, title: str) -> tuple[Path, File]:
        """Move an output to where the step cannot reach it; its path there, digest and executable bit.

        To be called when no process of the step is left. BuildError (`title` names the step) when there is no such
        output, or it is no regular file. It becomes ours, with mode 0644 or 0755: set-id bits go.
        """
        with self._output(name, title) as (folder, descriptor):
            executable = bool(os.fstat(descriptor).st_mode & 0o100)
            os.fchown(descriptor, ambient.effective_uid(), -1)
            # After the owner: whoever had it open could still have changed the mode.
            os.fchmod(descriptor, 0o755 if executable else 0o644)
            with os.fdopen(os.dup(descriptor), "rb") as file:
                digest = Digest(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=file.tell())
            target = self.root / "taken" / name
            os.rename(name, target, src_dir_fd=folder)
        return target, File(digest=digest, executable=executable)

    @contextmanager
    def _output(self, name: str, title: str) -> Iterator[tuple[int, int]]:
        """Descriptors of /out and of a regular file in it."""
        folder = os.open(self.out, _FOLDER)
        try:
            # O_NONBLOCK: opening a fifo must not wait for ever.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise BuildError(f"its output {name} is no regular file", where=title)
                yield folder, descriptor
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise BuildError(f"the step succeeded but left no {name}", where=title) from None
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO, errno.EACCES}:
                raise
            raise BuildError(f"its output {name} is no regular file that can be read", where=title) from None
        finally:
            os.close(folder)


@contextmanager
def made(parent: Path, name: str) -> Iterator[Scratch]:
    """A new scratch folder below `parent`, deleted afterwards.

    When a step fails (an Exception), its inputs are left, so that its replay script still works; sweep() deletes
    them. What the step itself wrote goes at once.
    """
    with _locked(parent) as found:
        root = Path(tempfile.mkdtemp(dir=found, prefix=f"{name}-"))
        guard = files.open_lock(root / _LOCK)
        fcntl.flock(guard, fcntl.LOCK_EX)
    try:
        scratch = Scratch(root=root)
        for folder in (scratch.inputs, scratch.build, scratch.out, root / "taken"):
            _folder(folder)
        yield scratch
    except Exception:
        for folder in (scratch.build, scratch.out, root / "taken"):
            delete(folder)
        raise
    except BaseException:
        delete(root)
        raise
    else:
        delete(root)
    finally:
        os.close(guard)


def _folder(path: Path) -> None:
    path.mkdir()
    # A step sees the mode of its own folders: never the umask's.
    path.chmod(0o755)


def make_folders(top: Path, folder: Path) -> None:
    """Make the folder and those on the way from `top`, with the mode that every step sees: never the umask's."""
    if folder != top and not folder.is_dir():
        make_folders(top, folder.parent)
        _folder(folder)


def sweep(parent: Path) -> None:
    """Delete what failed and killed runs left; what is in use stays."""
    if not parent.is_dir():
        return
    with _locked(parent) as found:
        names = sorted(entry.name for entry in os.scandir(found) if entry.is_dir(follow_symlinks=False))
    for name in names:
        with suppress(BlockingIOError, FileNotFoundError):
            # Whoever makes a folder has its lock before we can see it: one without is of somebody dead.
            guard = files.open_lock(parent / name / _LOCK)
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                delete(parent / name)
            finally:
                os.close(guard)


@contextmanager
def _locked(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    parent.chmod(0o700)
    guard = files.open_lock(parent / _LOCK)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield parent
    finally:
        os.close(guard)


def delete(root: Path) -> None:
    """Delete a folder whatever is in it: read-only folders, other owners, any depth. No link is followed.

    Says so when it takes longer than two seconds. Others must have no access to it.
    """
    started, told = ambient.monotonic(), False
    top = os.open(root, _FOLDER)
    try:
        # Folders are moved to the top before they are emptied: no depth of theirs is too deep then.
        prefix, numbers = f".{ambient.random_bytes(8).hex()}-", itertools.count()
        # Several threads: where the disk is told of every block that is freed (mount option discard), each unlink
        # waits for it, and the files of a kernel tree take minutes, one after the other.
        with ThreadPoolExecutor(_THREADS) as pool:

            def emptied(name: str) -> Future[list[str]]:
                return pool.submit(_empty, name, top, prefix, numbers)

            pending = {emptied("")}
            while pending:
                done, pending = wait(pending, timeout=_PATIENCE, return_when=FIRST_COMPLETED)
                pending |= {emptied(name) for future in done for name in future.result()}
                if not told and ambient.monotonic() - started > _PATIENCE:
                    ui.line(f"   deleting {root} …")
                    told = True
    finally:
        os.close(top)
    root.rmdir()


def _empty(name: str, top: int, prefix: str, numbers: Iterator[int]) -> list[str]:
    """Unlink what is in the folder (the top itself for ""), move its folders to the top, remove it."""
    moved = []
    folder = os.open(name, _FOLDER, dir_fd=top) if name else os.dup(top)
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for member, is_folder in found:
            if is_folder:
                moved.append(f"{prefix}{next(numbers)}")
                _open_up(member, folder)
                os.rename(member, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(member, dir_fd=folder)
    finally:
        os.close(folder)
    if name:
        os.rmdir(name, dir_fd=top)
    return moved


def _open_up(name: str, folder: int) -> None:
    """Give us all rights on a folder: it can only be moved by who may write to it."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        # fchmod(2) takes no such descriptor, and a folder without read permission opens no other way.
        Path(f"/proc/self/fd/{descriptor}").chmod(0o700)
    finally:
        os.close(descriptor)
