# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Real builds in a second checkout: found by their inputs, changed by a byte, killed at any moment.

The copy has a cache of its own with the same content, so that only what a test spoils is built again.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tools.pipeline.front.reporter import started
from tools.pipeline.tasks.project import Project

_LIMIT = 1200  # seconds; only to end a test that hangs


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each artifact in an output folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass(frozen=True)
class Checkout:
    """A copy in which `doit` runs as it is."""

    root: Path
    cache: Path

    @property
    def steps(self) -> Path:
        """Results of finished steps."""
        return self.cache / "steps"

    def start(self) -> subprocess.Popen[str]:
        """`doit build` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tools.pipeline.front", "build"],
            cwd=self.root,
            env={**os.environ, "SEV_ARTIFACTS_CACHE": str(self.cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def output(self) -> str:
        """Build to the end; what was printed."""
        with self.start() as process:
            output, _ = process.communicate(timeout=_LIMIT)
        assert process.returncode == 0, output
        return output

    def build(self) -> list[str]:
        """Build to the end; the names of the tasks that ran."""
        return started(self.output())

    def sums(self) -> dict[str, str]:
        """SHA-256 of each artifact."""
        return sums_of(self.root / "out")

    def forget(self, *steps: str) -> None:
        """Throw away the results of steps, as if they had never run."""
        for step in steps:
            shutil.rmtree(self.steps / step)


@pytest.fixture
def checkout(repository: Path, project: Project, artifacts: Path, tmp_path: Path) -> Iterator[Checkout]:
    """A copy with a copy of the cache; hard links, for a kernel tree has 85,000 files."""
    assert artifacts.is_dir()
    real = project.cas.root
    # Beside the real one, where hard links are possible.
    with tempfile.TemporaryDirectory(dir=real.parent, prefix=f".{real.name}-test-") as name:
        cache = Path(name)
        for shared in ("sha256", "trees"):
            (cache / shared).symlink_to(real / shared)
        ignore = shutil.ignore_patterns(".lock", ".scratch", ".doomed-*")
        shutil.copytree(real / "steps", cache / "steps", symlinks=True, copy_function=os.link, ignore=ignore)
        yield Checkout(root=copy_all(repository, tmp_path / "checkout"), cache=cache)


def replace_file(path: Path, data: bytes) -> None:
    """Exchange the content under a name; the file itself has other names."""
    path.unlink()
    path.write_bytes(data)


def test_a_spoiled_cache_changes_nothing(checkout: Checkout, artifacts: Path) -> None:
    """Results exchanged, with and without a record that fits, are noticed and made again."""
    (agent,) = (p for p in (checkout.steps / "agent").iterdir() if p.name == _newest(checkout, "agent"))
    (initramfs,) = (p for p in (checkout.steps / "initramfs").iterdir() if p.name == _newest(checkout, "initramfs"))
    replace_file(agent / "agent", b"not the agent")
    evil = b"not the initramfs"
    replace_file(initramfs / "initramfs.cpio.zst", evil)
    mark = json.loads((initramfs / "step.json").read_text())
    mark["record"]["outputs"]["initramfs.cpio.zst"] = hashlib.sha256(evil).hexdigest()
    replace_file(initramfs / "step.json", json.dumps(mark).encode())
    output = checkout.output()
    assert output.count("making it again") == 2, output
    assert checkout.sums() == sums_of(artifacts)


def _newest(checkout: Checkout, step: str) -> str:
    """The key of the result that was used last: this checkout's."""
    results = [p for p in (checkout.steps / step).iterdir() if not p.name.startswith(".")]
    return max(results, key=lambda p: p.stat().st_mtime_ns).name


def test_another_checkout_gives_the_same_artifacts(checkout: Checkout, artifacts: Path) -> None:
    """Its path is another one, its steps are found by their inputs, its second build runs nothing."""
    output = checkout.output()
    assert "artifacts:production" in started(output)
    # Not one step ran: each would have left a log.
    assert not (checkout.root / "build/log").exists(), output
    assert checkout.sums() == sums_of(artifacts)
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
    outputs = ["manifest:production", "artifacts:production"]
    assert checkout.build() == ["agent", "initramfs", "digests:production", "runtime:production", *outputs]
    after = checkout.sums()
    assert {name for name in before if before[name] != after[name]} == {
        "SHA256SUMS",
        "manifest.json",
        "initramfs.cpio.zst",
        "launch-digests.json",
        "runtime.toml",
    }
    # A comment gives the same bytes: the agent is compiled and only listed anew.
    main.write_text(changed + "// the end\n")
    assert checkout.build() == ["agent", *outputs]
    commented = checkout.sums()
    assert {name for name in after if after[name] != commented[name]} == {"SHA256SUMS", "manifest.json"}


def test_killed_at_any_moment_a_build_can_be_finished(checkout: Checkout) -> None:
    """SIGKILL after growing times, into unpacking, configuring, compiling, packing; then the same digests."""
    checkout.build()
    before = checkout.sums()
    spoiled = ("source-edk2", "kernel-config", "agent", "initramfs")
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
            _nothing_half_made(checkout.steps / step)
    assert seen_running
    checkout.build()
    assert checkout.sums() == before
    assert checkout.build() == []


def test_killed_compiling_the_kernel(checkout: Checkout) -> None:
    """No half-made kernel is taken for a result, and no compiler is left running."""
    checkout.build()
    before = checkout.sums()
    kept = checkout.cache / "kept"
    (checkout.steps / "kernel").rename(kept)
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
    assert [p for p in (checkout.steps / "kernel").iterdir() if not p.name.startswith(".")] == []
    _quiet(log)
    # Not to compile for minutes what was compiled before: the kept result is found by its inputs.
    shutil.rmtree(checkout.steps / "kernel", ignore_errors=True)
    kept.rename(checkout.steps / "kernel")
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
