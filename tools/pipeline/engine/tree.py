# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a step's root file system is: a complete tool tree."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The folder to mount as root, and the Merkle digest (merkle.py, in hex) of all that is in it."""

    path: Path
    digest: str
