# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The hash tree, byte for byte what veritysetup writes."""

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.launcher.bundle import hash_tree


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 16384, 16385])
def test_it_is_what_veritysetup_writes(blocks: int, host_tool: Callable[[str], Path], tmp_path: Path) -> None:
    """At the edges of its levels: 128 hashes are a block, 128 × 128 two levels."""
    data = b"".join(number.to_bytes(8, "little").ljust(4096, b"x") for number in range(blocks))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.write_bytes(data)
    with ours.open("r+b") as disk:
        found = hash_tree.append(disk, blocks=blocks)
    tool = host_tool("veritysetup")
    options = [f"--hash-offset={blocks * 4096}", f"--data-blocks={blocks}", "--salt=-", f"--uuid={uuid.UUID(int=0)}"]
    argv: list[str | Path] = [tool, "format", *options, theirs, theirs]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    root = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash"))
    assert found == hash_tree.HashTree(root_hash=root, blocks=blocks)
    assert ours.read_bytes() == theirs.read_bytes()
    # The control: it notices a bit.
    verify: list[str | Path] = [tool, "verify", f"--hash-offset={blocks * 4096}", ours, ours, root]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    changed = bytearray(ours.read_bytes())
    changed[4096 * (blocks - 1)] ^= 1
    ours.write_bytes(changed)
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0
