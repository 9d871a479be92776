# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The content-addressed download cache.

    ROOT/sha256/ab/abcdef…   complete files; the name is the SHA-256 of the bytes
    ROOT/partial/abcdef…     downloads on their way, resumed by whoever comes next

A name is not believed: an entry is hashed whenever it is used, and one that does not match is removed.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources.pins import Pin

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_POLL = 0.1  # seconds between two looks at a lock that another process holds


def _disk_error(error: OSError, path: Path) -> BuildError:
    """One line for a write that failed; a full disk has a remedy of its own."""
    if error.errno in _FULL:
        return BuildError(
            f"no space left ({error.strerror})",
            where=str(path),
            hint="free some space, or set SEV_ARTIFACTS_CACHE to a folder on a larger file system; "
            "what was downloaded so far is kept",
        )
    return BuildError(
        f"cannot be used: {error.strerror}",
        where=str(path),
        hint="set SEV_ARTIFACTS_CACHE to another folder",
    )


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Files by their SHA-256 below `root`."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Where the file with this digest lies, or would lie."""
        return self.root / "sha256" / sha256[:2] / sha256

    def read_verified(self, pin: Pin) -> bytes | None:
        """The pinned bytes, hashed after reading: what was checked is what is used. None if absent."""
        path = self.path(pin.sha256)
        try:
            if path.stat().st_size == pin.size:
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == pin.sha256:
                    return data
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _disk_error(error, path) from None
        return None

    def verified_path(self, pin: Pin) -> Path | None:
        """The entry's path after hashing it; None if absent. A wrong entry is removed first."""
        path = self.path(pin.sha256)
        try:
            with path.open("rb") as file:
                right = os.fstat(file.fileno()).st_size == pin.size
                right = right and hashlib.file_digest(file, "sha256").hexdigest() == pin.sha256
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _disk_error(error, path) from None
        if right:
            return path
        path.unlink(missing_ok=True)
        return None

    @contextmanager
    def partial(self, pin: Pin, *, wait: Callable[[float], None]) -> Iterator["Partial | None"]:
        """The pin's unfinished download, locked against other processes and threads.

        None if somebody else finished it meanwhile. `wait(seconds)` is called while another process holds
        the lock; it may raise to give up. The lock is the kernel's (flock): a killed process leaves none.
        """
        path = self.root / "partial" / pin.sha256
        final = self.path(pin.sha256)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            final.parent.mkdir(parents=True, exist_ok=True)
            file = _open_locked(path, wait)
        except OSError as error:
            raise _disk_error(error, path) from None
        try:
            # Closed without flushing surprises: the file is unbuffered.
            done = self.verified_path(pin) is not None
            if done:
                path.unlink(missing_ok=True)
            yield None if done else Partial(pin=pin, file=file, path=path, final=final)
        finally:
            file.close()


def _open_locked(path: Path, wait: Callable[[float], None]) -> BinaryIO:
    while True:
        file = path.open("ab+", buffering=0)
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    wait(_POLL)
            # Whoever held the lock may have renamed the file into the cache: then it is no longer ours.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


class Partial:
    """An unfinished download: append, hash on the way, and take it into the cache when it is right."""

    def __init__(self, *, pin: Pin, file: BinaryIO, path: Path, final: Path) -> None:
        self._pin = pin
        self._file = file
        self._path = path
        self._final = final
        self._hash = hashlib.sha256()
        self.size = 0
        file.seek(0)
        while chunk := file.read(_CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)
        if self.size > pin.size:
            self.restart()

    def restart(self) -> None:
        """Forget what was downloaded."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0

    def append(self, data: bytes) -> None:
        """Write and hash; never more than the pinned size."""
        if self.size + len(data) > self._pin.size:
            raise AssertionError("a caller offered more than the pinned size")
        view = memoryview(data)
        try:
            # A raw file writes as much as fits: the loop meets a full disk at the next call.
            while view:
                done = self._file.write(view)
                self._hash.update(view[:done])
                self.size += done
                view = view[done:]
        except OSError as error:
            raise _disk_error(error, self._path) from None

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.size == self._pin.size

    @property
    def right(self) -> bool:
        """Whether the bytes are the pinned ones."""
        return self.complete and self._hash.hexdigest() == self._pin.sha256

    def commit(self) -> None:
        """Give the verified file its final name: on disk first, then renamed, then the name on disk."""
        if not self.right:
            raise AssertionError("unverified bytes never get the final name")
        try:
            os.fsync(self._file.fileno())
            # Read-only: an entry never changes. The mode is explicit, never the umask's.
            os.fchmod(self._file.fileno(), 0o444)
            self._path.replace(self._final)
            folder = os.open(self._final.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _disk_error(error, self._final) from None
