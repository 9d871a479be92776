# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""EROFS images with dm-verity's hash tree behind them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Verity:
    """An EROFS image with its dm-verity tree behind it."""

    image: Path
    root_hash: str
    salt: str
    data_size: int


def with_tree(erofs: Path, veritysetup: Path) -> Verity:
    """A copy of the image with what `veritysetup format` appends."""
    image = erofs.with_suffix(".verity.erofs")
    data = erofs.read_bytes()
    assert len(data) % 4096 == 0
    image.write_bytes(data)
    done = subprocess.run(
        [
            veritysetup,
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
    said = {key: value.strip() for key, _, value in (line.partition(":") for line in done.stdout.splitlines())}
    return Verity(image=image, root_hash=said["Root hash"], salt=said["Salt"], data_size=len(data))
