# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""tools/sev/ and tools/launcher/ → sev-launch, one executable file that a person can read."""

from pathlib import Path

from tools.pipeline.engine.step import CheckoutFile, Step

NAME = "sev-launch"
_PROGRAM = "tools/pipeline/publish/pack_launcher.py"
# Those of Debian 13 and Debian 12. Any other compiles what it imports, at every start.
_PYTHONS = ("python3", "python3.11")
_PACKAGES = ("tools/sev", "tools/launcher")


def sources(root: Path) -> list[str]:
    """What it is packed from, by path from the checkout's root."""
    found = (path for package in _PACKAGES for path in (root / package).rglob("*.py"))
    return sorted(["tools/__init__.py", *(path.relative_to(root).as_posix() for path in found)])


def step(root: Path) -> Step:
    """The step that packs it."""
    return Step(
        name="launcher",
        title="launcher",
        argv=("python3", "/inputs/pack.py", "/src", f"/out/{NAME}", *_PYTHONS),
        tools="python",
        inputs={
            "/inputs/pack.py": CheckoutFile(path=_PROGRAM),
            **{f"/src/{path}": CheckoutFile(path=path) for path in sources(root)},
        },
        outputs=(NAME,),
    )
