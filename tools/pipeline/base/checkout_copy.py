# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A copy of what a checkout is made of, without what builds and tools leave in it."""

import shutil
from pathlib import Path

RECIPES = ("recipes", "kernel-patches", "qemu-patches", "initramfs", "pyproject.toml")
"""What people write by hand: recipes, locks, patches, the manifest and the agent's sources."""

EVERYTHING = (
    *RECIPES, "dodo.py", "tools", "doit",
    "requirements.in", "requirements.lock", "requirements-dev.in", "requirements-dev.lock",
    "requirements-remote.in", "requirements-remote.lock",
)  # fmt: skip
"""All that `doit` needs to start."""

# `target` is what a developer's own cargo leaves behind.
_IGNORED = shutil.ignore_patterns("__pycache__", "target", ".*")


def make(source: Path, target: Path, names: tuple[str, ...] = EVERYTHING) -> Path:
    """Copy the named parts of a checkout; `target` must not exist yet."""
    target.mkdir(parents=True)
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True, ignore=_IGNORED)
        else:
            shutil.copy2(source / name, target / name)
    return target
