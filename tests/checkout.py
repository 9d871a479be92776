# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the checkout that is small enough to break once a test."""

import shutil
from pathlib import Path

_RECIPES = ("recipes", "kernel-patches", "initramfs", "pyproject.toml")
_CODE = ("dodo.py", "tools", "requirements.in", "requirements.lock", "doit")
_IGNORED = shutil.ignore_patterns("__pycache__", "target", ".*")


def copy_recipes(source: Path, target: Path) -> Path:
    """What people write by hand: recipes, locks, patches, the manifest and the agent's sources."""
    return _copy(source, target, _RECIPES)


def copy_all(source: Path, target: Path) -> Path:
    """Everything that `doit` needs to start."""
    return _copy(source, target, (*_RECIPES, *_CODE))


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> Path:
    target.mkdir(parents=True)
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True, ignore=_IGNORED)
        else:
            shutil.copy2(source / name, target / name)
    return target
