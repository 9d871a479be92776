# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One lock a key, so that two builds of the same step wait for each other and others do not.

The kernel's lock (flock): whoever waits finds the result made, and what a killed process left is nobody's.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.pipeline.base import files, ui


def private_folder(path: Path) -> Path:
    """The folder, made with mode 0700 if it is not there."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextmanager
def locked(folder: Path, key: str, *, waiting: str) -> Iterator[None]:
    """Hold the key's lock, whose file lies in `folder`, where only this user can write.

    `waiting` is said while another process holds it. The file goes with its last holder.
    """
    path = private_folder(folder) / key
    while True:
        guard = files.open_lock(path)
        try:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with ui.working(waiting):
                    fcntl.flock(guard, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(guard)):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
            # Whoever held the lock took the file with it: the name is another file's by now.
        finally:
            os.close(guard)
