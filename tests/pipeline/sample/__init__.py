# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes for unit tests, beside this file: small, and different from what is shipped, so that who changes the
shipped ones breaks no unit test.
"""

from pathlib import Path

from tools.pipeline.recipes import load
from tools.pipeline.recipes.load import Recipes

ROOT = Path(__file__).resolve().parent
"""What would be the root of a checkout."""

SOURCES = ("linux-a", "linux-b", "edk2-a", "edk2-a-debian")
"""The names in what would be its sources.toml."""


def recipes(root: Path = ROOT) -> Recipes:
    """The parsed recipes, or those of a changed copy."""
    return load.recipes(root, sources=SOURCES)
