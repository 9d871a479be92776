# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A pinned source archive → an unpacked, patched source tree, in the sandbox."""

from collections.abc import Sequence

from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store import Input, Step
from tools.pipeline.toolchain.tool_tree import Tree

FOLDER = "tree"
"""Name of the source tree in the step's output folder."""

# GNU tar inside the sandbox refuses absolute names and `..`, and there is nothing of the host to reach.
_UNPACK = (
    f"mkdir /out/{FOLDER} && cd /out/{FOLDER} && "
    "tar --extract --file=/inputs/source --strip-components=1 --no-same-owner --no-same-permissions && "
)


def step(
    *,
    name: str,
    title: str,
    tool: Tree,
    archive: Input,
    extra: Sequence[Input] = (),
    script: str,
) -> Step:
    """The step that unpacks `archive` and then runs a shell script in the tree; `extra` are its inputs."""
    return Step(
        name=name,
        title=title,
        argv=("/bin/sh", "-euc", _UNPACK + script),
        tool=tool,
        inputs=(archive, *extra),
        outputs=(FOLDER,),
        keep=2,  # a kernel tree is 1.5 GB
    )


def judge(log: str, status: int) -> None:
    """Raise UserError with the last line of the log for what apply-patches.sh found wrong."""
    if status == 2:
        raise UserError(log.rstrip().rpartition("\n")[2])
