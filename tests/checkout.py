# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the checkout that is small enough to break once a test."""

from pathlib import Path

from tools.pipeline.base import checkout_copy


def copy_recipes(source: Path, target: Path) -> Path:
    """What people write by hand: recipes, locks, patches, the manifest and the agent's sources."""
    return checkout_copy.make(source, target, checkout_copy.RECIPES)


def copy_all(source: Path, target: Path) -> Path:
    """Everything that `doit` needs to start."""
    return checkout_copy.make(source, target)
