# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A step's private folder: what it is given, where it works, what it leaves.

    PARENT/NAME-xxxxxxxx/          mode 0700, ours: nobody else sees or changes anything below
                        /inputs    private copies of the step's inputs, put there by the caller
                        /build     the step's, writable
                        /out       the step's, writable: outputs are taken from here by take()
                        .lock      held while its owner lives

PARENT is in the checkout, never in a cache that others share: what is hashed here is what the step wrote.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.merkle import Digest, File

_LOCK = ".lock"
_PATIENCE = 2.0  # seconds that something may take without a word
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """The folders of one run of a step."""

    root: Path

    @property
    def inputs(self) -> Path:
        """Ours: files that are put here should be readable to all, for the step is somebody else when we are root."""
        return self.root / "inputs"

    @property
    def build(self) -> Path:
        """The step's working folder."""
        return self.root / "build"

    @property
    def out(self) -> Path:
        """Where the step puts its outputs."""
        return self.root / "out"

    def take(self, name: str, target: Path) -> File:
        """Copy an output to a new file and say what it is; see take()."""
        return take(self.out, name, target)
