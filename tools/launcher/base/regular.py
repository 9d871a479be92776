# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Files that a container's configuration names: whoever wrote that may have put anything in their place."""

import os
import stat
from pathlib import Path

from tools.launcher.base.errors import UserError


def read_regular(path: Path, limit: int) -> bytes:
    """The file's bytes, at most one more than `limit`; UserError for what is no regular file.

    A fifo is not waited for, and a device not read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError("is no file", where=str(path))
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                return stream.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=str(path)) from None
