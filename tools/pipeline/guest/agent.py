# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""initramfs/agent/ → one static executable."""

from pathlib import Path

from tools.pipeline.engine.step import CheckoutFile, Step

NAME = "agent"
_CRATE = "initramfs/agent"


def sources(root: Path) -> list[str]:
    """What the agent is made of, from the checkout's root; `target/` is what a developer's own cargo leaves behind."""
    folder = root / _CRATE
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(f"{_CRATE}/{path.as_posix()}" for path in paths if path.parts[0] != "target")


def step(root: Path) -> Step:
    """The step that compiles it."""
    return Step(
        name=NAME,
        title="agent",
        argv=("/bin/sh", "-eu", "/src/build.sh"),
        tools="build",
        inputs={f"/src/{path.removeprefix(f'{_CRATE}/')}": CheckoutFile(path=path) for path in sources(root)},
        outputs=(NAME,),
        parallel=True,
    )
