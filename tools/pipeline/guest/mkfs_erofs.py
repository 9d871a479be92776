# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""erofs-utils tarball → mkfs.erofs, one static executable.

Whoever makes a layer's image must get the bytes that everybody gets, so the program is pinned like the guest itself.
"""

from tools.pipeline.engine.step import CheckoutFile, Reference, Step
from tools.sev.formats import MKFS_NAME

NAME = MKFS_NAME
SOURCE = "erofs-utils"
"""The pin."""

_FOLDER = "recipes/erofs"


def step(*, archive: Reference, version: str) -> Step:
    """The step that compiles it."""
    return Step(
        name="mkfs-erofs",
        title=f"mkfs.erofs {version}",
        argv=("/bin/sh", "-eu", "/inputs/build.sh"),
        tools="build",
        inputs={
            "/inputs/source": archive,
            "/inputs/build.sh": CheckoutFile(path=f"{_FOLDER}/build.sh"),
            "/inputs/config.h": CheckoutFile(path=f"{_FOLDER}/config.h"),
        },
        outputs=(NAME,),
    )
