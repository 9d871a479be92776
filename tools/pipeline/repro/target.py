# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is built again, and where."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is checked: doit tasks, the files or folders that they make, and the tool trees that they need."""

    name: str
    tasks: tuple[str, ...]
    files: tuple[str, ...]
    trees: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A checkout that is built again, the cache whose downloads are taken, and the folder for all that is made."""

    root: Path
    cache: Path
    folder: Path
