# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which keys a change moves: exactly those of what depends on it. Nothing is built for it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import copy_all

_NAMES = ("linux-6.12", "linux-6.12-builtin", "linux-6.12-debug", "linux-6.12-kata", "linux-6.12-network")
_KERNELS = {f"kernel-{name}" for name in _NAMES}
_CONFIGS = {f"kernel-config-{name}" for name in _NAMES}
# What is started: profiles, and the second kernel of one.
_PROFILES = ("builtin", "debug", "kata", "production", "production-network")
_DIGESTS = {f"digests-{name}" for name in _PROFILES}
_RUNTIME = {f"runtime-{name}" for name in _PROFILES}
_PACKED = {"launcher", "container-runtime"}
_KATA = {"dropins-kata"}
_MEASURED = _DIGESTS | _RUNTIME
_BUILTIN = {"kernel-linux-6.12-builtin", "digests-builtin", "runtime-builtin"}
_AGENT = {"agent", "initramfs"} | _BUILTIN | _MEASURED


def graph(root: Path, *options: str) -> str:
    argv = [sys.executable, "-m", "tools.pipeline.front", "graph", *options]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A copy of the checkout whose steps are all in the cache, and their keys."""

    root: Path
    before: dict[str, str]

    def change(self, file: str, old: str, new: str) -> set[str]:
        """Exchange one byte, keeping size and time: what a checker that trusts times would miss. Give moved()."""
        path = self.root / file
        state, data = path.stat(), path.read_bytes()
        assert len(old) == len(new)
        assert old.encode() in data
        path.write_bytes(data.replace(old.encode(), new.encode(), 1))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        return self.moved()

    def append(self, file: str, text: str) -> set[str]:
        path = self.root / file
        path.write_bytes((path.read_bytes() if path.exists() else b"") + text.encode())
        return self.moved()

    def moved(self) -> set[str]:
        """The steps whose keys are others now, or not known before something is made."""
        now = keys(self.root)
        return {name for name in {*now, *self.before} if now.get(name) != self.before.get(name)}


def keys(root: Path) -> dict[str, Any]:
    return {step["name"]: step["key"] for step in json.loads(graph(root, "--json"))["steps"]}


@pytest.fixture
def checkout(repository: Path, tmp_path: Path, artifacts: Path) -> Checkout:
    assert artifacts.is_dir()
    root = copy_all(repository, tmp_path / "checkout")
    before = keys(root)
    assert all(before.values()), "every step must have been built before this test"
    return Checkout(root=root, before=before)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "kernel-patches/6.12/0001-virtio_ring-always-use-the-DMA-API-in-an-encrypted-guest.patch",
            "force_dma_api",
            "force_dmb_api",
            # What Kconfig and the initramfs take of the source is not known either before it is made.
            {"source-linux-6.12", "initramfs"} | _CONFIGS | _KERNELS | _MEASURED,
        ),
        ("recipes/kernel/fragments/base.config", "SPDX", "SPDY", _CONFIGS | _KERNELS | _MEASURED),
        (
            "recipes/kernel/fragments/debug.config",
            "SPDX",
            "SPDY",
            {"kernel-config-linux-6.12-debug", "kernel-linux-6.12-debug", "digests-debug", "runtime-debug"},
        ),
        ("initramfs/agent/src/main.rs", "SPDX", "SPDY", _AGENT),
        ("initramfs/manifest.toml", '"0755"', '"0750"', _AGENT - {"agent"}),
        ("recipes/runtime.toml.j2", "SEV guest", "SEV Guest", _RUNTIME),
        ("recipes/kata/dropin.toml.j2", "Read docs", "read docs", _KATA),
        ("recipes/guest.toml", '"512M"', '"513M"', _RUNTIME | _KATA),
        (
            "recipes/profiles/production.toml",
            "panic=-1",
            "panic=-2",
            {f"{step}-{name}" for step in ("digests", "runtime") for name in ("production", "production-network")},
        ),
        ("recipes/firmware/build.sh", "set -eu", "set -ue", {"firmware-ovmf"} | _MEASURED),
        ("recipes/firmware/platform/KernelBdsDxe/KernelBdsDxe.c", "SPDX", "SPDY", {"firmware-ovmf"} | _MEASURED),
        ("recipes/qemu/build.sh", "SPDX", "SPDY", {"qemu-lite"} | _RUNTIME),
        ("recipes/erofs/config.h", "HAVE_SYSCONF 1", "HAVE_SYSCONF 2", {"mkfs-erofs"}),
        (
            "recipes/apply-patches.sh",
            "set -eu",
            "set -ue",
            {"source-linux-6.12", "source-edk2", "source-qemu", "firmware-ovmf", "initramfs", "qemu-lite"}
            | _CONFIGS
            | _KERNELS
            | _MEASURED,
        ),
        ("recipes/firmware/patches/debian.toml", "exactly our", "exactly 0ur", set()),
        ("recipes/expected.sha256", "out/vmlinuz", "out/vmlinux", set()),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_one_byte_moves_exactly_what_depends_on_it(
    checkout: Checkout, file: str, old: str, new: str, expected: set[str]
) -> None:
    assert checkout.change(file, old, new) == expected
    assert checkout.change(file, new, old) == set()


def test_a_comment_in_our_code_moves_nothing(checkout: Checkout) -> None:
    """But in what is an input of a step: the launcher's modules, and the programs that run in the sandbox."""
    packed = ("tools/launcher/", "tools/sev/", "tools/__init__.py", "tools/pipeline/publish/pack_launcher.py")
    rendered = "tools/pipeline/publish/render.py"
    measured = ("tools/sev/", "tools/__init__.py", "tools/pipeline/__init__.py", "tools/pipeline/measure/")
    pipeline = sorted((checkout.root / "tools/pipeline").rglob("*.py"))
    names = [path.relative_to(checkout.root).as_posix() for path in pipeline]
    rest = [name for name in names if not name.startswith((*packed, rendered, *measured))]
    assert len(rest) > 60
    for name in [*rest, "dodo.py", "requirements.in"]:
        (checkout.root / name).write_bytes((checkout.root / name).read_bytes() + b"# a comment\n")
    assert checkout.moved() == set()
    assert checkout.append("tools/launcher/base/ui.py", "# a comment\n") == _PACKED
    assert checkout.append("tools/runtime/base/log.py", "# a comment\n") == _PACKED
    assert checkout.append(rendered, "# a comment\n") == _PACKED | _RUNTIME | _KATA


def test_a_new_file_is_noticed(checkout: Checkout) -> None:
    """A source file that is added to the agent is part of it, named or not."""
    assert checkout.append("initramfs/agent/src/new.rs", "// new\n") == _AGENT


def test_the_whole_graph_is_printed(repository: Path, artifacts: Path) -> None:
    """As text, as JSON, and for Graphviz: every step with its key, its result and its time."""
    assert artifacts.is_dir()
    found = json.loads(graph(repository, "--json"))
    steps = {step["name"]: step for step in found["steps"]}
    assert found["schema"] == 1
    assert _KERNELS | _CONFIGS | _MEASURED | _KATA | _PACKED | {"agent", "initramfs"} <= steps.keys()
    assert steps["kernel-linux-6.12"]["there"] is True
    assert steps["kernel-linux-6.12"]["seconds"] > 1
    assert steps["kernel-linux-6.12"]["needs"] == ["kernel-config-linux-6.12", "source-linux-6.12"]
    text = graph(repository)
    dot = graph(repository, "--dot")
    assert dot.startswith("digraph steps {")
    assert dot.rstrip().endswith("}")
    for name, step in steps.items():
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert step["key"][:12] in line
        assert "run here" in line or "local cache" in line
        assert f'"{name}" [label=' in dot
        assert all(f'"{needed}" -> "{name}";' in dot for needed in step["needs"])
    assert '"launcher" -> "out/";' in dot
    argv = [sys.executable, "-m", "tools.pipeline.front", "graph", "--json", "--dot"]
    both = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=False)
    assert (both.returncode, both.stdout) == (2, "")
    assert "one of --json and --dot" in both.stderr
