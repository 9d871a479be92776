# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A download on its way into the store (store/cas.py): one file, continued by whoever comes next, one at a time."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from tools.pipeline.base import ambient, files
from tools.pipeline.engine.store.cas import MAKE, Cas, disk_error
from tools.pipeline.sources.pins import Pin

_CHUNK = 1 << 20
_POLL = 0.1  # seconds between two looks at a lock that another process holds


@contextmanager
def opened(cas: Cas, pin: Pin, *, wait: Callable[[float], None]) -> Iterator["Partial | None"]:
    """The unfinished download of a file, locked against other processes and threads.

    None if somebody else finished it meanwhile. `wait(seconds)` is called while another process holds
    the lock; it may raise to give up. The lock is the kernel's (flock): a killed process leaves none.
    """
    path = cas.root / "partial" / pin.sha256
    try:
        folder = files.open_folder(cas.root, "partial", make=True)
    except OSError as error:
        raise disk_error(error, path) from None
    try:
        try:
            file = _open_locked(pin.sha256, folder, wait)
        except OSError as error:
            raise disk_error(error, path) from None
        with file:
            done = cas.verified(pin.sha256, pin.size)
            if done:
                with suppress(FileNotFoundError):
                    os.unlink(pin.sha256, dir_fd=folder)
            yield None if done else Partial(pin=pin, file=file, folder=folder, cas=cas)
    finally:
        os.close(folder)


class Partial:
    """An unfinished download: append, hash on the way, and take it into the store when it is right."""

    def __init__(self, *, pin: Pin, file: BinaryIO, folder: int, cas: Cas) -> None:
        self._pin = pin
        self._file = file
        self._folder = folder
        self._cas = cas
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
        """Write and hash; never more than the wanted size."""
        if self.size + len(data) > self._pin.size:
            raise AssertionError("a caller offered more than the wanted size")
        view = memoryview(data)
        try:
            # A raw file writes as much as fits: the loop meets a full disk at the next call.
            while view:
                done = self._file.write(view)
                self._hash.update(view[:done])
                self.size += done
                view = view[done:]
        except OSError as error:
            raise disk_error(error, self._cas.root / "partial" / self._pin.sha256) from None

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.size == self._pin.size

    @property
    def right(self) -> bool:
        """Whether the bytes are the wanted ones."""
        return self.complete and self._hash.hexdigest() == self._pin.sha256

    def commit(self) -> None:
        """Give the verified file its final name."""
        if not self.right:
            raise AssertionError("unverified bytes never get the final name")
        try:
            self._cas.enter(self._file, self._pin.sha256, self._folder, self._pin.sha256)
        except OSError as error:
            raise disk_error(error, self._cas.path(self._pin.sha256)) from None


def _open_locked(name: str, folder: int, wait: Callable[[float], None]) -> BinaryIO:
    while True:
        file = os.fdopen(_open_ours(name, folder), "ab+", buffering=0)
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    wait(_POLL)
            # Whoever held the lock may have renamed the file into the store: then it is no longer ours.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(file.fileno())):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _open_ours(name: str, folder: int) -> int:
    """Open a file of ours for reading and writing, a new one unless it is there.

    Anything else of that name is removed: another's file, a link, a second name of a file elsewhere.
    """
    while True:
        with suppress(FileExistsError):
            return os.open(name, MAKE | os.O_APPEND, 0o600, dir_fd=folder)
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO, errno.EACCES}:
                raise
        else:
            status = os.fstat(descriptor)
            ours = status.st_uid == ambient.effective_uid() and not status.st_mode & 0o022
            # No name at all: just renamed into the store, or removed, by whoever had it.
            if ours and stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
                return descriptor
            os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
