# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The one tar of a layer → its EROFS image, by the mkfs.erofs that is built beside the launcher."""

import os
import subprocess
from pathlib import Path

from tools.launcher.base.errors import LauncherError, UserError

# No UUID and no time of making; contents in blocks, so that dm-verity reads what is asked for. --mkfs-time leaves the
# files their times. --aufs makes overlayfs's whiteouts of .wh. names.
_OPTIONS = ("-U", "00000000-0000-0000-0000-000000000000", "-T0", "--mkfs-time", "--tar=f", "--aufs", "--quiet")


def make(program: Path, archive: Path, image: Path) -> None:
    """Write `image`, which must not exist, from the tar; `program` is mkfs.erofs."""
    if not os.access(program, os.X_OK):
        hint = "./doit build makes it; it belongs beside the launcher"
        raise UserError("is no program that can be run", where=str(program), hint=hint)
    # Nothing of the caller's environment; temporary files go where the image goes.
    environment = {"LC_ALL": "C", "TMPDIR": os.fspath(image.parent)}
    done = subprocess.run(
        [program, *_OPTIONS, image, archive],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        image.unlink(missing_ok=True)
        lines = tuple(done.stdout.decode("utf-8", "replace").splitlines()[-5:])
        raise LauncherError(f"mkfs.erofs ended with status {done.returncode}", where=str(image), details=lines)
