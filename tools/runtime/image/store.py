# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Disks kept by content, for whoever runs the runtime alone, within bounds.

lock               held by the one process that makes something
disks/HASH.img     by its root hash; whoever uses it holds a shared lock on it
images/KEY.json    which disk an image's layers have become
layers/KEY.json    in which disk a layer lies, and where
making-*           what is being made; of nobody once the lock is free

No owner of a guest has to believe what is here: the root hash is in the launch digest, and the guest checks blocks.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.launcher.base.errors import UserError
from tools.launcher.bundle import hash_tree
from tools.launcher.bundle.hash_tree import BLOCK
from tools.sev.workload.document import Verity

_DISKS, _IMAGES, _LAYERS, _MAKING = "disks", "images", "layers", "making-"
_RECORD_MAX = 1 << 16
_NOT_BY_THE_KERNEL = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A guest's root. It stays in the cache while `descriptor`, or a copy that a child has inherited, is open.

    The descriptor may be read; it is closed on exec unless made inheritable. `verity` is the document's root.
    """

    path: Path
    verity: Verity
    descriptor: int

    def close(self) -> None:
        """Let the cache remove it."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer's image in a disk that is open: where it begins and how long it is, in blocks, and of how many."""

    descriptor: int
    offset: int
    blocks: int
    of: int


class Store:
    """The cache in `folder`, which is made if need be. `limit`: bytes of all disks, beyond which old ones go."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        try:
            for path in (folder, *(folder / name for name in (_DISKS, _IMAGES, _LAYERS))):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                    what = "is not a folder that only its owner may look into, and that is whose runtime this is"
                    raise UserError(what, where=str(path), hint="remove it, or name another cache")
        except OSError as error:
            raise UserError(error.strerror or "cannot be made", where=error.filename or str(folder)) from None

    def find(self, key: str) -> Disk | None:
        """The disk that was kept for an image."""
        record = self._record(_IMAGES, key)
        try:
            verity = Verity(root_hash=record["root_hash"], salt=record["salt"], layers=tuple(record["layers"]))
            descriptor = self._open(verity.root_hash, blocks=verity.blocks)
        except (KeyError, TypeError):
            return None
        if descriptor is None:
            return None
        return Disk(path=self._path(verity.root_hash), verity=verity, descriptor=descriptor)

    @contextmanager
    def part(self, key: str) -> Iterator[Part | None]:
        """The image that was made of a layer, as long as the block runs; None where there is none."""
        record = self._record(_LAYERS, key)
        try:
            offset, blocks, of = (int(record[name]) for name in ("offset", "blocks", "of"))
            descriptor = self._open(record["disk"], blocks=of)
        except (KeyError, TypeError, ValueError):
            yield None
            return
        if descriptor is None:
            yield None
            return
        try:
            yield Part(descriptor=descriptor, offset=offset, blocks=blocks, of=of)
        finally:
            os.close(descriptor)

    @contextmanager
    def making(self, *, waits: Callable[[], None]) -> Iterator[Path]:
        """A folder to make something in, while nobody else does; it is gone afterwards. `waits` is told of a wait."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in sorted(self._folder.glob(f"{_MAKING}*")):
                shutil.rmtree(stale, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self._folder))
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(lock)

    def keep(self, disk: Path, verity: Verity, *, image: str | None, layers: list[str | None]) -> Disk:
        """Take in what was made, under these keys (None: not to be found again); then old disks go.

        Only inside of making().
        """
        target = self._path(verity.root_hash)
        descriptor = self._open(verity.root_hash, blocks=verity.blocks)
        if descriptor is None:
            with disk.open("rb") as stream:
                # A name that a power cut leaves behind must have its content.
                os.fsync(stream.fileno())
            disk.rename(target)
            descriptor = self._open(verity.root_hash, blocks=verity.blocks)
            assert descriptor is not None, "nobody else removes disks meanwhile"
        offset = 0
        for key, blocks in zip(layers, verity.layers, strict=True):
            if key is not None:
                record = {"disk": verity.root_hash, "offset": offset, "blocks": blocks, "of": verity.blocks}
                self._write(disk.parent, _LAYERS, key, record)
            offset += blocks
        if image is not None:
            record = {"root_hash": verity.root_hash, "salt": verity.salt, "layers": list(verity.layers)}
            self._write(disk.parent, _IMAGES, image, record)
        self._shrink()
        return Disk(path=target, verity=verity, descriptor=descriptor)

    def _path(self, root_hash: str) -> Path:
        return self._folder / _DISKS / f"{root_hash}.img"

    def _open(self, root_hash: str, *, blocks: int) -> int | None:
        """Open and locked against removal, and now the one that was used last; None when it is not there, or cut."""
        try:
            descriptor = os.open(self._path(root_hash), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if status.st_nlink and status.st_size == hash_tree.size(blocks):
                os.utime(descriptor)
                return descriptor
        except BlockingIOError:
            pass  # it is being removed
        os.close(descriptor)
        return None

    def _record(self, kind: str, key: str) -> dict[str, Any]:
        """What was written down under a key; nothing where that is damaged or missing."""
        try:
            with (self._folder / kind / f"{key}.json").open("rb") as stream:
                record = json.loads(stream.read(_RECORD_MAX))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write(self, work: Path, kind: str, key: str, record: dict[str, Any]) -> None:
        path = work / "record"
        path.write_text(json.dumps(record), encoding="ascii")
        path.rename(self._folder / kind / f"{key}.json")

    def _shrink(self) -> None:
        """Remove disks that were not used for longest and are not in use, and what is known of no disk."""
        disks = {path: path.stat() for path in sorted((self._folder / _DISKS).iterdir())}
        total = sum(status.st_blocks * 512 for status in disks.values())
        for path, status in sorted(disks.items(), key=lambda item: (item[1].st_mtime_ns, item[0])):
            if total <= self._limit:
                break
            if self._remove(path):
                total -= status.st_blocks * 512
        left = {path.stem for path in sorted((self._folder / _DISKS).iterdir())}
        for kind, name in ((_IMAGES, "root_hash"), (_LAYERS, "disk")):
            for path in sorted((self._folder / kind).iterdir()):
                if self._record(kind, path.stem).get(name) not in left:
                    path.unlink(missing_ok=True)

    @staticmethod
    def _remove(path: Path) -> bool:
        """Whether it is gone; one that somebody uses stays."""
        with path.open("rb") as stream, contextlib.suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
        return False


def copy(source: int, target: int, *, offset: int, count: int) -> None:
    """Append a stretch of one file, in bytes, to another, inside of the kernel where the file system can."""
    while count:
        try:
            done = os.copy_file_range(source, target, count, offset_src=offset)
        except OSError as error:
            if error.errno not in _NOT_BY_THE_KERNEL:
                raise
            done = os.write(target, os.pread(source, min(count, 256 * BLOCK), offset))
        if done == 0:
            raise UserError("ends too soon", where="the image cache", hint="remove the cache; it is made again")
        offset += done
        count -= done
