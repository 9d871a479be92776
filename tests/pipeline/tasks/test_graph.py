# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What runs again after a change: exactly what depends on it, and nothing the second time."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.toolchain.tool_tree import Tree

_LISTED = {"manifest:production", "artifacts:production"}
_OUTPUT = {"runtime:production"} | _LISTED
_MEASURED = {"digests:production"}
_KERNEL = {"kernel_config:production", "kernel:production"}
_FIRMWARE = {"source:edk2", "firmware:ovmf"}


@dataclass(frozen=True)
class Graph:
    """The real graph over a copied checkout, with recording actions."""

    root: Path

    def run(self, *tasks: str) -> list[str]:
        """Run doit; the names of the tasks that were executed, sorted."""
        log = self.root / "executed.log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "doit", "-f", "recorded_dodo.py", *tasks],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return sorted(log.read_text().split()) if log.exists() else []

    def append(self, file: str, text: str) -> None:
        """Add to a file."""
        path = self.root / file
        path.write_bytes(path.read_bytes() + text.encode())

    def change_byte(self, file: str, old: str, new: str) -> None:
        """Exchange one byte, keeping size and time: what a checker that trusts times would miss."""
        path = self.root / file
        state = path.stat()
        data = path.read_bytes()
        assert len(old) == len(new)
        assert old.encode() in data
        path.write_bytes(data.replace(old.encode(), new.encode(), 1))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.fixture
def graph(repository: Path, tmp_path: Path, build_tree: Tree) -> Graph:
    """A copy in which everything has been built once."""
    assert build_tree.path.is_dir()
    root = copy_all(repository, tmp_path / "checkout")
    shutil.copy2(Path(__file__).parent / "recorded_dodo.py", root)
    made = Graph(root)
    first = made.run("build")
    assert "kernel:production" in first
    assert "artifacts:production" in first
    assert "kernel:debug" not in first
    return made


def test_a_second_build_runs_nothing(graph: Graph) -> None:
    """Also not after files that no task names have changed."""
    assert graph.run("build") == []
    graph.append("requirements.in", "# a comment\n")
    assert graph.run("build") == []


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "kernel-patches/6.12/0001-virtio_ring-always-use-the-DMA-API-in-an-encrypted-guest.patch",
            "force_dma_api",
            "force_dmb_api",
            {"source:linux"} | _KERNEL | _MEASURED,
        ),
        ("recipes/kernel/fragments/base.config", "CONFIG_64BIT=y", "CONFIG_64BIT=n", _KERNEL | _MEASURED),
        ("recipes/kernel/fragments/debug.config", "CONFIG_", "CONFIH_", None),
        ("initramfs/agent/src/main.rs", "SPDX", "SPDY", {"agent", "initramfs"} | _MEASURED),
        ("initramfs/manifest.toml", '"0755"', '"0750"', {"initramfs"} | _MEASURED),
        ("recipes/runtime.toml.j2", "SEV guest", "SEV Guest", set()),
        ("recipes/guest.toml", '"512M"', '"513M"', {"kata:production"} | _MEASURED),
        ("recipes/profiles/production.toml", "panic=-1", "panic=-2", {"kata:production"} | _MEASURED),
        ("recipes/profiles/debug.toml", "panic=-1", "panic=-2", None),
        ("recipes/firmware/build.sh", "set -eu", "set -ue", {"firmware:ovmf"} | _MEASURED),
        ("recipes/apply-patches.sh", "set -eu", "set -ue", {"source:linux"} | _KERNEL | _FIRMWARE | _MEASURED),
        ("recipes/firmware/patches/debian.toml", "exactly our", "exactly 0ur", _FIRMWARE | _MEASURED),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)  # fmt: skip
def test_one_byte_reruns_exactly_what_depends_on_it(
    graph: Graph, file: str, old: str, new: str, expected: set[str] | None
) -> None:
    """The changed byte keeps the file's size and time. None: the default build does not depend on it."""
    graph.change_byte(file, old, new)
    wanted = sorted(expected | _OUTPUT) if expected is not None else []
    assert graph.run("build") == wanted
    assert graph.run("build") == []


def test_a_launcher_change_reruns_launcher_and_output(graph: Graph) -> None:
    """The launcher is in no other artifact, so not even runtime.toml is rendered again."""
    graph.append("tools/launcher/base/ui.py", "# a comment\n")
    assert graph.run("build") == sorted({"launcher"} | _LISTED)


def test_new_expected_digests_are_compared(graph: Graph) -> None:
    """Nothing is built again for them."""
    path = graph.root / "recipes/expected.sha256"
    path.write_text(f"{'0' * 64}  out/vmlinuz\n")
    assert graph.run("build") == ["artifacts:production"]


def test_a_drop_in_for_kata_is_rendered_alone(graph: Graph) -> None:
    """Nothing that starts guests depends on it."""
    graph.change_byte("recipes/kata/dropin.toml.j2", "Read docs", "read docs")
    assert graph.run("build") == sorted({"kata:production"} | _LISTED)


def test_a_new_file_is_noticed(graph: Graph) -> None:
    """A source file that is added to the agent is part of it, named or not."""
    (graph.root / "initramfs/agent/src/new.rs").write_text("// new\n")
    assert graph.run("build") == sorted({"agent", "initramfs"} | _MEASURED | _OUTPUT)


def test_a_lost_target_is_made_again(graph: Graph) -> None:
    """Deleting an artifact brings that artifact's task back, not its inputs'."""
    (graph.root / "out/vmlinuz").unlink()
    assert graph.run("build") == ["artifacts:production"]


def test_profiles_share_what_they_can(graph: Graph) -> None:
    """After the production build, the debug one needs its own kernel and output only."""
    assert graph.run("build_debug") == [
        "artifacts:debug",
        "digests:debug",
        "kata:debug",
        "kernel:debug",
        "kernel_config:debug",
        "manifest:debug",
        "runtime:debug",
    ]


def test_a_builtin_initramfs_makes_the_kernel_depend_on_the_agent(graph: Graph) -> None:
    """Where it is carried beside the kernel, it must not."""
    graph.run("artifacts:builtin")
    graph.change_byte("initramfs/agent/src/main.rs", "SPDX", "SPDY")
    again = graph.run("build", "artifacts:builtin")
    assert "kernel:builtin" in again
    assert "kernel:production" not in again
