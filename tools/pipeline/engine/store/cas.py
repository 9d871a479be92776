# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Files by their SHA-256: downloads, and results of build steps.

    ROOT/sha256/ab/abcdef…   complete files; the name is the SHA-256 of the bytes
    ROOT/partial/abcdef…     downloads on their way, resumed by whoever comes next (sources/partial.py)
    ROOT/partial/new-…       files on their way in, of a run that is still going or was killed

Others may write below ROOT. A name is not believed: bytes are hashed while they are read or copied, and what was
hashed is what is used; an entry that does not match is removed. No link below ROOT is followed, and what is written
to is ours: whatever somebody puts there, nothing elsewhere is changed.
"""

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.pipeline.base import ambient, files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.merkle import Digest

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NAME = re.compile(r"[0-9a-f]{64}")
_NEW = "new-"
# O_NONBLOCK: opening a fifo that somebody put there must not wait for ever.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of the store: its name, size in bytes, and when it was last used (seconds since the epoch)."""

    sha256: str
    size: int
    used: float


@dataclass(frozen=True, kw_only=True)
class Cas:
    """Files by their SHA-256 below `root`. Full disks and the like are BuildErrors that name the place."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Where the file lies, or would lie: for messages. What is opened by it has not been verified."""
        return self.root / "sha256" / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Whether there is a file of that name and size; nothing is read, so its bytes may be wrong."""
        with self._entry(sha256) as folder:
            if folder is None:
                return False
            status = os.stat(sha256, dir_fd=folder, follow_symlinks=False)
            return stat.S_ISREG(status.st_mode) and status.st_size == size

    def read(self, sha256: str, size: int) -> bytes | None:
        """The bytes, hashed after reading: what was checked is what is used. None if absent."""
        parts: list[bytes] = []
        return b"".join(parts) if self._take(sha256, size, parts.append) else None

    def verified(self, sha256: str, size: int) -> bool:
        """Whether the file is there and right, now; a wrong one is removed."""
        return self._take(sha256, size, lambda _: None)

    def copy_to(self, sha256: str, size: int, target: Path, *, mode: int = 0o644) -> bool:
        """Copy the file to a new one, verified while copying; False, and no target, if absent or wrong.

        FileExistsError when the target is there already. The mode is explicit, never the umask's.
        """
        descriptor = os.open(target, MAKE, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                right = self._take(sha256, size, lambda chunk: _write(file, chunk, target, elsewhere=True))
                os.fchmod(file.fileno(), mode)
        except BaseException:
            target.unlink()
            raise
        if not right:
            target.unlink()
        return right

    def put_file(self, path: Path) -> Digest:
        """Take in a copy of a file; no link is followed."""
        with os.fdopen(os.open(path, _READ), "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BuildError("is no regular file", where=str(path))
            return self._put(iter(lambda: file.read(_CHUNK), b""))

    def put_bytes(self, data: bytes) -> Digest:
        """Take in bytes."""
        return self._put([data])

    def put_expected(self, chunks: Iterable[bytes], wanted: Digest) -> bool:
        """Take in what somebody else sends as the file `wanted`; False, and nothing is kept, when it is not that.

        No more is read than its size. Whatever `chunks` raises passes through, and nothing is kept then either.
        """
        try:
            return self._put(_bounded(chunks, wanted.size), wanted) == wanted
        except _Other:
            return False

    def open(self, sha256: str, size: int) -> BinaryIO | None:
        """The file for reading, its size compared but not its bytes; None if absent, or nothing but a regular file."""
        try:
            with self._folder("sha256", sha256[:2]) as folder:
                file = os.fdopen(os.open(sha256, _READ, dir_fd=folder), "rb", buffering=0)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
                return None
            raise disk_error(error, self.path(sha256)) from None
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            return file
        file.close()
        return None

    def entries(self) -> Iterator[Entry]:
        """Every file of the store, in the order of their names. Nothing is hashed."""
        for folder in sorted(self.root.glob("sha256/*")):
            for sha256, status in files.members(self.root, "sha256", folder.name):
                if _NAME.fullmatch(sha256):
                    yield Entry(sha256=sha256, size=status.st_size, used=status.st_mtime)

    def remove(self, sha256: str) -> None:
        """Remove a file, if it is there."""
        files.remove_member(self.root, "sha256", sha256[:2], sha256)

    def sweep(self) -> None:
        """Remove what killed runs left on its way in. Downloads stay: they are resumed."""
        for name, _ in files.members(self.root, "partial"):
            if name.startswith(_NEW):
                with self._folder("partial") as folder, suppress(OSError), ExitStack() as stack:
                    file = stack.enter_context(os.fdopen(os.open(name, _READ, dir_fd=folder), "rb"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)

    def _take(self, sha256: str, size: int, use: Callable[[bytes], object]) -> bool:
        """Hand out the bytes and hash them; False if there are none or they are wrong, then the entry goes."""
        with self._entry(sha256) as folder:
            if folder is None:
                return False
            with self._opened(sha256, folder) as file:
                right = file is not None and _hand_out(file, sha256, size, use)
                if right and file is not None:
                    with suppress(OSError):
                        os.utime(file.fileno())  # used just now; another's, or a read-only cache, is fine too
                else:
                    os.unlink(sha256, dir_fd=folder)
            return right

    @contextmanager
    def _opened(self, name: str, folder: int) -> Iterator[BinaryIO | None]:
        """The regular file of that name; None for anything else, a link for example."""
        try:
            descriptor = os.open(name, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO}:
                raise
            yield None
            return
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            yield file if stat.S_ISREG(os.fstat(descriptor).st_mode) else None

    @contextmanager
    def _entry(self, sha256: str) -> Iterator[int | None]:
        """The folder of an entry, or None when there is no such entry; what is wrong with the disk is told."""
        with ExitStack() as opened:
            try:
                folder = self._locate(sha256, opened)
                yield folder
            except OSError as error:
                raise disk_error(error, self.path(sha256)) from None

    def _locate(self, sha256: str, opened: ExitStack) -> int | None:
        try:
            folder = opened.enter_context(self._folder("sha256", sha256[:2]))
            os.stat(sha256, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return folder

    @contextmanager
    def _folder(self, *names: str, make: bool = False) -> Iterator[int]:
        folder = files.open_folder(self.root, *names, make=make)
        try:
            yield folder
        finally:
            os.close(folder)

    def _put(self, chunks: Iterable[bytes], wanted: Digest | None = None) -> Digest:
        name = f"{_NEW}{ambient.random_bytes(16).hex()}"
        content, size = hashlib.sha256(), 0
        try:
            with self._folder("partial", make=True) as folder, _new(name, folder) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                for chunk in chunks:
                    content.update(chunk)
                    size += len(chunk)
                    _write(file, chunk, self.root / "partial" / name)
                found = Digest(sha256=content.hexdigest(), size=size)
                if wanted not in {None, found}:
                    raise _Other
                self.enter(file, name, folder, found.sha256)
        except OSError as error:
            raise disk_error(error, self.root) from None
        return found

    def enter(self, file: BinaryIO, name: str, folder: int, sha256: str) -> None:
        """Give a complete file its final name: on disk first, then renamed, then the name on disk."""
        os.fsync(file.fileno())
        # Read-only: an entry never changes. The mode is explicit, never the umask's.
        os.fchmod(file.fileno(), 0o444)
        with self._folder("sha256", sha256[:2], make=True) as final:
            os.replace(name, sha256, src_dir_fd=folder, dst_dir_fd=final)
            os.fsync(final)


class _Other(Exception):  # noqa: N818 (what came, not what failed)
    """Other bytes than those that were wanted."""


def _bounded(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    for chunk in chunks:
        most -= len(chunk)
        if most < 0:
            raise _Other
        yield chunk


@contextmanager
def _new(name: str, folder: int) -> Iterator[BinaryIO]:
    """A new file, removed when something goes wrong."""
    with os.fdopen(os.open(name, MAKE, 0o600, dir_fd=folder), "wb", buffering=0) as file:
        try:
            yield file
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            raise


def _hand_out(file: BinaryIO, sha256: str, size: int, use: Callable[[bytes], object]) -> bool:
    if os.fstat(file.fileno()).st_size != size:
        return False
    content, left = hashlib.sha256(), size
    # Never more than the size, however the file grows meanwhile.
    while left and (chunk := file.read(min(left, _CHUNK))):
        content.update(chunk)
        left -= len(chunk)
        use(chunk)
    return not left and content.hexdigest() == sha256


def _write(file: BinaryIO, data: bytes, path: Path, *, elsewhere: bool = False) -> None:
    view = memoryview(data)
    try:
        # A raw file writes as much as fits: the loop meets a full disk at the next call.
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise disk_error(error, path, elsewhere=elsewhere) from None


def disk_error(error: OSError, path: Path, *, elsewhere: bool = False) -> BuildError:
    """One line for a write that failed; a full disk has a remedy of its own.

    `elsewhere`: the place is none of the cache's, so that another cache would not help.
    """
    if error.errno in _FULL:
        return BuildError(
            f"no space left ({error.strerror})",
            where=str(path),
            hint="free some space there"
            if elsewhere
            else "free some space, or set SEV_ARTIFACTS_CACHE to a folder on a larger file system; "
            "what was downloaded so far is kept",
        )
    return BuildError(
        f"cannot be used: {error.strerror}",
        where=str(path),
        hint="set SEV_ARTIFACTS_CACHE to another folder",
    )
