# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The folder that is pulled into: filled under another name beside it, renamed when everything in it is right."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.pull.connection import Connection
from tools.launcher.pull.registry import Registry
from tools.launcher.trust.artifact import File

_FLUSH = 16 << 20  # bytes


def check_free(target: Path) -> None:
    """UserError unless there is nothing at the target, or an empty folder."""
    try:
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise UserError("is there already", where=str(target), hint="name a new folder")
        if not target.absolute().parent.is_dir():
            raise UserError("no such folder", where=str(target.absolute().parent), hint="make it first")
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=str(target)) from None


@contextmanager
def growing(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block ends well, and is gone when not."""
    parent = target.absolute().parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=parent))
    except OSError as error:
        raise UserError(error.strerror or "cannot be written", where=str(parent)) from None
    try:
        yield folder
        try:
            folder.chmod(0o755)
            _sync(folder)
            folder.rename(target)
            _sync(parent)
        except OSError as error:
            raise UserError(error.strerror or "cannot be written", where=str(target)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(folder: Path, name: str, data: bytes) -> None:
    """A small file of our own."""
    with _made(folder, name, executable=False) as stream:
        stream.write(data)


def bring(connection: Connection, registry: Registry, file: File, folder: Path) -> None:
    """A file of the artifact, hashed while it arrives; CheckError when it is another."""
    with _made(folder, file.name, executable=file.executable) as stream:
        hasher = _Hasher(stream)
        connection.patiently(lambda: registry.fetch(file.sha256, file.size, hasher.take, hasher.count))
    if hasher.digest.hexdigest() != file.sha256:
        raise connection.error(f"sends other bytes for {file.name}", hint="it is damaged, or lies: use another")


class _Hasher:
    """Hashes and writes what arrives; what is written goes to the disk meanwhile, not all of it at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self.count = 0
        self.digest = hashlib.sha256()
        self._stream = stream
        self._flushed = 0
        self._flush = threading.Thread()

    def take(self, data: memoryview) -> None:
        """The next bytes; UserError where there is no room for them."""
        self.digest.update(data)
        self.count += len(data)
        try:
            # A raw file writes as much as fits: the loop meets a full disk at the next call.
            while data:
                data = data[self._stream.write(data) :]
        except OSError as error:
            raise UserError(error.strerror or "cannot be written", where=str(self._stream.name)) from None
        if self.count - self._flushed >= _FLUSH and not self._flush.is_alive():
            self._flushed = self.count
            self._flush = threading.Thread(target=_flush, args=(os.dup(self._stream.fileno()),), daemon=True)
            self._flush.start()


def _flush(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    except OSError:
        pass  # said again at the end, where it counts
    finally:
        os.close(descriptor)


@contextmanager
def _made(folder: Path, name: str, *, executable: bool) -> Iterator[BinaryIO]:
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=0) as stream:
            yield stream
            path.chmod(0o755 if executable else 0o644)
            os.fsync(stream.fileno())
    except OSError as error:
        raise UserError(error.strerror or "cannot be written", where=str(folder)) from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_sums(folder: Path, name: str, files: dict[str, File]) -> None:
    """CheckError unless the file of sums lists exactly these files with these digests."""
    said = {}
    for line in (folder / name).read_text(encoding="utf-8", errors="replace").splitlines():
        said[line[66:]] = line[:64]
    wanted = {file.name: file.sha256 for file in files.values()}
    if said != wanted:
        differing = sorted(one for one in {*said, *wanted} if said.get(one) != wanted.get(one))
        raise CheckError(f"disagrees with the manifest on {differing[0][:80]}", where=name)
