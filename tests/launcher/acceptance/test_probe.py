# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The program that is written by hand: its bytes are what an assembler makes of the text beside them, and it runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tools.launcher.acceptance import probe
from tools.launcher.guest import rootfs
from tools.pipeline.engine.tree import Tree
from tools.sev.workload import reader


def test_the_listing_is_its_own_assembly(
    build_tree: Tree, host_tool: Callable[..., Path], tmp_path: Path
) -> None:  # fmt: skip
    text = [line[16:].partition("#")[0] for line in probe.LISTING.splitlines()]
    source, made, code = (tmp_path / name for name in ("probe.s", "probe.o", "probe.bin"))
    source.write_text("\n".join([".intel_syntax noprefix", ".globl _start", *text, ""]))
    subprocess.run([host_tool("as", build_tree), "-o", made, source], check=True, cwd=tmp_path)
    subprocess.run([host_tool("objcopy", build_tree), "-O", "binary", "-j", ".text", made, code], check=True)
    assert code.read_bytes() == probe.code()


def test_it_runs_and_makes_its_marker(tmp_path: Path) -> None:
    """On this machine, whose kernel's log it may not read where it is not root."""
    program = tmp_path / "probe"
    program.write_bytes(probe.program())
    program.chmod(0o755)
    pieces = b"m" * 32 + b"c" * 32 + b"e" * 32
    done = subprocess.run([program], input=pieces, capture_output=True, check=False, timeout=60)
    assert done.stdout.startswith(probe.FIRST)
    if done.returncode != 9:
        assert done.returncode == 0
        assert done.stdout.endswith(probe.UP + probe.MADE + probe.HELD)
    # Without its pieces it says so instead of going on.
    assert subprocess.run([program], input=b"", capture_output=True, check=False, timeout=60).returncode == 9


def test_its_root_is_one_that_the_launcher_takes(tmp_path: Path) -> None:
    image, tar = probe.root(tmp_path)
    assert rootfs.prepare(image.path, into=tmp_path, memory_mib=128, note=lambda _: None) == image
    for commands in (False, True):
        document = probe.document(tar, commands=commands)
        assert reader.parse(document.data, where="d") == document
        assert document.host_exec is commands
