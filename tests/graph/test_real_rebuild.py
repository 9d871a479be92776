# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Real builds in a second checkout: found by their inputs, changed by a byte, killed at any moment.

The copy gets the results of the checkout's finished steps, so that only what a test spoils is built again.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all

_LIMIT = 1200  # seconds; only to end a test that hangs


@dataclass(frozen=True)
class Checkout:
    """A copy in which `doit` runs as it is."""

    root: Path

    def start(self) -> subprocess.Popen[str]:
        """`doit build` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "doit", "build"],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def build(self) -> list[str]:
        """Build to the end; the names of the tasks that ran."""
        with self.start() as process:
            output, _ = process.communicate(timeout=_LIMIT)
        assert process.returncode == 0, output
        return [line[3:] for line in output.splitlines() if line.startswith(".  ")]

    def sums(self) -> dict[str, str]:
        """SHA-256 of each artifact."""
        out = self.root / "out"
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}

    def forget(self, *steps: str) -> None:
        """Throw away the results of steps, as if they had never run."""
        for step in steps:
            shutil.rmtree(self.root / "build/store" / step)


@pytest.fixture
def checkout(repository: Path, artifacts: Path, tmp_path: Path) -> Checkout:
    """A copy with the finished steps of this checkout; hard links, for a kernel tree has 85,000 files."""
    assert artifacts.is_dir()
    root = copy_all(repository, tmp_path / "checkout")
    shutil.copytree(repository / "build/store", root / "build/store", symlinks=True, copy_function=os.link)
    return Checkout(root)


def test_another_checkout_gives_the_same_artifacts(checkout: Checkout, artifacts: Path) -> None:
    """Its path is another one, its steps are found by their inputs, its second build runs nothing."""
    assert "artifacts:production" in checkout.build()
    assert checkout.sums() == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(artifacts.iterdir())
    }
    assert checkout.build() == []


def test_a_change_of_the_agent_changes_initramfs_and_config_alone(checkout: Checkout) -> None:
    """One byte of a message of the agent's; kernel, firmware and launcher stay what they were."""
    checkout.build()
    before = checkout.sums()
    main = checkout.root / "initramfs/agent/src/main.rs"
    text = main.read_text()
    changed = text.replace("agent: {reason}", "Agent: {reason}")
    assert changed != text
    main.write_text(changed)
    output = ["digests:production", "runtime:production", "artifacts:production"]
    assert checkout.build() == ["agent", "initramfs", *output]
    after = checkout.sums()
    assert {name for name in before if before[name] != after[name]} == {
        "SHA256SUMS",
        "initramfs.cpio.zst",
        "launch-digests.json",
        "runtime.toml",
    }
    # A comment gives the same bytes: the agent is compiled and nothing after it runs.
    main.write_text(changed + "// the end\n")
    assert checkout.build() == ["agent"]
    assert checkout.sums() == after


def test_killed_at_any_moment_a_build_can_be_finished(checkout: Checkout) -> None:
    """SIGKILL after growing times, into unpacking, configuring, compiling, packing; then the same digests."""
    checkout.build()
    before = checkout.sums()
    spoiled = ("source-edk2", "kernel-config-production", "agent", "initramfs")
    checkout.forget(*spoiled)
    shutil.rmtree(checkout.root / "out")
    (checkout.root / "build/doit.db").unlink()
    seen_running = False
    for seconds in (0.3, 0.8, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 18.0):
        process = checkout.start()
        time.sleep(seconds)
        seen_running |= process.poll() is None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for step in spoiled:
            _nothing_half_made(checkout.root / "build/store" / step)
    assert seen_running
    checkout.build()
    assert checkout.sums() == before
    assert checkout.build() == []


def test_killed_compiling_the_kernel(checkout: Checkout) -> None:
    """No half-made kernel is taken for a result, and no compiler is left running."""
    checkout.build()
    before = checkout.sums()
    kept = checkout.root / "kept"
    (checkout.root / "build/store/kernel-production").rename(kept)
    (checkout.root / "build/kernel/production/bzImage").unlink()
    process = checkout.start()
    log = checkout.root / "build/log/kernel-production.log"
    deadline = time.monotonic() + _LIMIT
    while not (log.exists() and log.read_text().count("\n") > 40) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.poll() is None
    # The python process alone, as the kernel's out-of-memory killer would.
    process.kill()
    process.communicate()
    assert not (checkout.root / "build/kernel/production/bzImage").exists()
    assert list((checkout.root / "build/store").glob("kernel-production/*")) == []
    _quiet(log)
    # Not to compile for minutes what was compiled before: the kept result is found by its inputs.
    shutil.rmtree(checkout.root / "build/store/kernel-production", ignore_errors=True)
    kept.rename(checkout.root / "build/store/kernel-production")
    checkout.build()
    assert checkout.sums() == before


def _nothing_half_made(shelf: Path) -> None:
    """Whatever stands on the shelf under a key is complete."""
    for result in shelf.iterdir() if shelf.is_dir() else ():
        if not result.name.startswith("."):
            assert (result / "step.json").is_file()


def _quiet(log: Path) -> None:
    """The sandbox dies with its parent: soon nothing writes to the log any more."""
    deadline = time.monotonic() + 60
    size, since = log.stat().st_size, time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < deadline, "something still writes to the log"
        time.sleep(0.2)
        if log.stat().st_size != size:
            size, since = log.stat().st_size, time.monotonic()
