# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where things lie in a checkout, with the parsed recipes: what task creators hand on."""

from dataclasses import dataclass
from pathlib import Path

from tools.pipeline import ambient, recipes
from tools.pipeline.recipes import Profile, Recipes
from tools.pipeline.store import Store


@dataclass(frozen=True, kw_only=True)
class Project:
    """A checkout."""

    root: Path
    recipes: Recipes

    @staticmethod
    def load(root: Path | None = None) -> "Project":
        """Read the recipes of the checkout that this code stands in, or of another."""
        root = root or ambient.repository_root()
        return Project(root=root, recipes=recipes.load(root))

    @property
    def build(self) -> Path:
        """Everything intermediate; may be deleted at any time."""
        return self.root / "build"

    @property
    def store(self) -> Store:
        """Results of build steps."""
        return Store(root=self.build, jobs=ambient.cpu_count())

    def out(self, profile: Profile) -> Path:
        """Where a profile's artifacts go."""
        return self.root / ("out" if profile.name == recipes.DEFAULT_PROFILE else f"out-{profile.name}")

    def fragments(self, profile: Profile) -> list[Path]:
        """The profile's kernel configuration fragments, in order."""
        return [self.root / "recipes/kernel" / f"{name}.config" for name in profile.kernel.fragments]
