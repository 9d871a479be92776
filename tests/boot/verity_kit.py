# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""EROFS images with dm-verity's hash tree behind them."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Verity:
    """An EROFS image with its dm-verity tree behind it."""

    image: Path
    root_hash: str
    data_size: int


def with_tree(erofs: Path, host_tool: Callable[[str], Path]) -> Verity:
    """A copy of the image with what `veritysetup format` appends."""
    image = erofs.with_suffix(".verity.erofs")
    data = erofs.read_bytes()
    assert len(data) % 4096 == 0
    image.write_bytes(data)
    done = subprocess.run(
        [
            host_tool("veritysetup"),
            "format",
            f"--data-blocks={len(data) // 4096}",
            f"--hash-offset={len(data)}",
            image,
            image,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    root_hash = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash"))
    return Verity(image=image, root_hash=root_hash, data_size=len(data))
