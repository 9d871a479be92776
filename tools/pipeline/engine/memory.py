# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which steps work in memory: a kernel's sources are 60,000 files, and a disk takes minutes to delete them.

Where the disk is told of each block that is freed (mount option discard, as in Debian's cloud images), unlinking took
three minutes after four of compiling; a tmpfs goes with the sandbox. What comes out is the same, and is in no key.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tools.pipeline.base import ambient

_SIZE = 4 << 30  # bytes; a kernel's working folder takes 1.6 GB


@dataclass(kw_only=True)
class Memory:
    """Counts the steps of one build that work in memory, so that together they never take more than is there.

    `size` is what each may take, in bytes; a step that fails for want of more runs again, on disk. `available` gives
    the bytes that could be used without swapping.
    """

    size: int = _SIZE
    available: Callable[[], int] = ambient.available_memory
    _users: int = field(default=0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def room(self) -> Iterator[int]:
        """The size for one more step while the context lasts, or 0 when memory does not reach."""
        with self._lock:
            # What the others have not taken yet, this one's, and as much again for compilers.
            granted = not ambient.scratch_on_disk() and self.available() >= (self._users + 2) * self.size
            self._users += granted
        try:
            yield self.size if granted else 0
        finally:
            with self._lock:
                self._users -= granted
