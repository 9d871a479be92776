# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A private folder for one guest (mode 0700), and the removal of those that killed launchers left.

Each folder holds a file `lock` that its launcher keeps locked: a folder whose lock is free is stale.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.launcher.base.errors import UserError

PREFIX = "sev-launch-"
_LOCK = "lock"


class RunDir:
    """Context manager; `path` exists inside the block. `base` is where it is made; None: where temporary files are."""

    def __init__(self, base: Path | None = None) -> None:
        self._base = base
        self.path = Path()
        self._lock = -1

    def __enter__(self) -> Self:
        base = (self._base or Path(tempfile.gettempdir())).resolve()
        _sweep(base)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            # Locked before it gets its name, so that no other launcher ever sees it free.
            temporary = self.path / f".{_LOCK}"
            self._lock = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.rename(self.path / _LOCK)
        except OSError as error:
            raise UserError.of_write(error, base) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(base: Path) -> None:
    """Remove stale folders of this user; anything unexpected is left alone."""
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_stale(Path(entry.path))


def _remove_if_stale(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
