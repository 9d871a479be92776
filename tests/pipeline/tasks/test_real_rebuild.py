# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Real builds in a second checkout: found by their inputs, changed by a byte, killed at any moment.

The copy has a cache of its own with the same content, so that only what a test spoils is made again.
"""

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
from typing import Any

import pytest

from tests.checkout import copy_all
from tools.pipeline.base import files
from tools.pipeline.front.reporter import started
from tools.pipeline.tasks.project import Project

_LIMIT = 1800  # seconds; only to end a test that hangs
_EXPECTED = "recipes/expected.sha256"


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each artifact in an output folder."""
    return {str(p.relative_to(folder)): files.of_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A copy in which `doit` runs as it is. `steps` are those of out/manifest.json, by name."""

    root: Path
    cache: Path
    steps: dict[str, Any]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`doit build`, or another command, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tools.pipeline.front", *(words or ("build",))],
            cwd=self.root,
            env={**os.environ, "SEV_ARTIFACTS_CACHE": str(self.cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ends(self, *words: str) -> tuple[int, str]:
        """A command to its end: status, and what was printed."""
        with self.start(*words) as process:
            output, _ = process.communicate(timeout=_LIMIT)
        return process.returncode, output

    def output(self) -> str:
        """Build to the end; what was printed."""
        status, output = self.ends()
        assert status == 0, output
        return output

    def build(self) -> set[str]:
        """Build to the end; the names of the tasks that ran."""
        return set(started(self.output()))

    def sums(self) -> dict[str, str]:
        """SHA-256 of each artifact."""
        return sums_of(self.root / "out")

    def record(self, step: str) -> Path:
        """Where the cache has the result of a step."""
        key = self.steps[step]["key"]
        return Path(self.cache, "results", key[:2], f"{key}.json")

    def stored(self, step: str, output: str) -> Path:
        """Where the cache has an output of a step."""
        sha256 = self.steps[step]["outputs"][output]["sha256"]
        return Path(self.cache, "sha256", sha256[:2], sha256)

    def rooms(self) -> list[Path]:
        """Working folders of steps."""
        return [path for path in (self.root / "build/scratch").glob("*") if path.is_dir()]


@pytest.fixture(scope="module")
def cache(project: Project) -> Iterator[Path]:
    """A cache with hard links to the tool trees, beside the real one, where hard links are possible."""
    real = project.cas.root
    with tempfile.TemporaryDirectory(dir=real.parent, prefix=f".{real.name}-test-") as name:
        (Path(name) / "trees").mkdir()
        trees = [str(project.trees.ensure(tree).path.parent) for tree in ("build", "python", "qemu")]
        subprocess.run(["cp", "--archive", "--link", *trees, f"{name}/trees"], check=True)
        yield Path(name)


@pytest.fixture
def checkout(repository: Path, project: Project, artifacts: Path, cache: Path, tmp_path: Path) -> Checkout:
    """A copy whose cache has all that the real one has."""
    for shared in ("sha256", "results"):
        shutil.rmtree(cache / shared, ignore_errors=True)
        shutil.copytree(project.cas.root / shared, cache / shared, copy_function=os.link)
    listed = json.loads((artifacts / "manifest.json").read_bytes())["steps"]
    root = copy_all(repository, tmp_path / "checkout")
    return Checkout(root=root, cache=cache, steps={step["name"]: step for step in listed})


def replace_file(path: Path, data: bytes) -> None:
    """Exchange the content under a name; the file itself has other names."""
    path.unlink()
    path.write_bytes(data)


def test_another_checkout_gives_the_same_artifacts(checkout: Checkout, artifacts: Path) -> None:
    """Its path is another one, its steps are found by their inputs, its second build runs nothing."""
    output = checkout.output()
    assert "artifacts:production" in started(output)
    # Not one step ran: each would have left a log.
    assert not (checkout.root / "build/log").exists(), output
    assert checkout.sums() == sums_of(artifacts)
    assert checkout.build() == set()


def test_a_spoiled_cache_changes_nothing(checkout: Checkout, artifacts: Path) -> None:
    """Outputs exchanged, and a record that would vouch for another one: noticed, and made again."""
    for step, output in (("agent", "agent"), ("launcher", "sev-launch")):
        stored = checkout.stored(step, output)
        replace_file(stored, bytes(stored.stat().st_size))
    evil = b"not the initramfs"
    planted = checkout.cache / "sha256" / files.of_bytes(evil)[:2] / files.of_bytes(evil)
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(evil)
    record = json.loads(checkout.record("initramfs").read_text())
    record["record"]["outputs"]["initramfs.cpio.zst"] |= {"sha256": planted.name, "size": len(evil)}
    replace_file(checkout.record("initramfs"), json.dumps(record).encode())
    output = checkout.output()
    assert output.count("making it again") == 2, output
    assert (checkout.root / "build/log/initramfs.log").exists()
    assert checkout.sums() == sums_of(artifacts)


def test_a_change_of_the_agent_changes_what_is_made_of_it(checkout: Checkout) -> None:
    """One byte of a message of the agent's; kernel, firmware and launcher stay what they were."""
    checkout.build()
    before = checkout.sums()
    main = checkout.root / "initramfs/agent/src/main.rs"
    text = main.read_text()
    changed = text.replace("agent: {reason}", "Agent: {reason}")
    assert changed != text
    main.write_text(changed)
    configs = {f"{step}-production{kernel}" for step in ("digests", "runtime") for kernel in ("", "-network")}
    made_of_it = {"agent", "initramfs", "artifacts:production"} | configs
    assert checkout.build() == made_of_it
    after = checkout.sums()
    assert {name for name in before if before[name] != after[name]} == {
        "SHA256SUMS",
        "manifest.json",
        "initramfs.cpio.zst",
        "launch-digests.json",
        "launch-digests-network.json",
        "runtime.toml",
        "runtime-network.toml",
    }
    # A comment gives the same bytes: the agent is compiled and only listed anew.
    main.write_text(changed + "// the end\n")
    assert checkout.build() == {"agent", "artifacts:production"}
    commented = checkout.sums()
    assert {name for name in after if after[name] != commented[name]} == {"SHA256SUMS", "manifest.json"}


def test_killed_at_any_moment_a_build_can_be_finished(checkout: Checkout) -> None:
    """SIGKILL after growing times, into unpacking, configuring, compiling, packing; then the same digests."""
    checkout.build()
    before = checkout.sums()
    for step in ("kernel-config-linux-6.12", "agent", "initramfs", "launcher"):
        checkout.record(step).unlink()
    shutil.rmtree(checkout.root / "out")
    shutil.rmtree(checkout.root / "build")
    seen_running = False
    for seconds in (0.3, 0.8, 1.5, 2.5, 4.0, 6.0, 9.0):
        process = checkout.start()
        time.sleep(seconds)
        if process.poll() is None:
            seen_running = True
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert seen_running
    checkout.build()
    assert checkout.sums() == before
    assert checkout.build() == set()
    assert checkout.rooms() == []


def test_killed_compiling_the_kernel(checkout: Checkout) -> None:
    """No half-made kernel is taken for a result, no compiler is left running, and its folder is swept."""
    checkout.build()
    before = checkout.sums()
    record = checkout.record("kernel-linux-6.12")
    kept = record.read_bytes()
    record.unlink()
    (checkout.root / "build/results/kernel-linux-6.12.json").unlink()
    process = checkout.start()
    log = checkout.root / "build/log/kernel-linux-6.12.log"
    deadline = time.monotonic() + _LIMIT
    while not (log.exists() and log.read_text().count("\n") > 40) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.poll() is None
    # The python process alone, as the kernel's out-of-memory killer would.
    process.kill()
    process.communicate()
    assert not record.exists()
    assert not (checkout.root / "build/results/kernel-linux-6.12.json").exists()
    _quiet(log)
    # Not to compile for minutes what was compiled before: the kept result is found by its inputs.
    record.write_bytes(kept)
    checkout.record("launcher").unlink()
    assert len(checkout.rooms()) == 1
    checkout.build()
    assert checkout.sums() == before
    assert checkout.rooms() == []


def _quiet(log: Path) -> None:
    """The sandbox dies with its parent: soon nothing writes to the log any more."""
    deadline = time.monotonic() + 60
    size, since = log.stat().st_size, time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < deadline, "something still writes to the log"
        time.sleep(0.2)
        if log.stat().st_size != size:
            size, since = log.stat().st_size, time.monotonic()


def test_whether_it_is_as_expected_is_an_exit_status(checkout: Checkout) -> None:
    """For CI: `check:PROFILE` fails where a build only tells; `accept:PROFILE` asks for no other profile's build."""
    path = checkout.root / _EXPECTED
    others = [line for line in path.read_text().splitlines() if "  out/" not in line]
    path.write_text("".join(f"{line}\n" for line in others))
    nothing = "nothing is expected of out/ yet (recipes/expected.sha256); when it is right: ./doit accept:production"
    status, output = checkout.ends("check:production")
    assert status == 1
    assert f"error: check:production: {nothing}\n" in output
    status, output = checkout.ends("accept:production")
    assert status == 0
    assert not {"artifacts:debug", "artifacts:builtin"} & set(started(output))
    assert [line for line in path.read_text().splitlines() if "  out/" not in line] == others
    status, output = checkout.ends("check:production")
    assert status == 0, output
    assert "   out/ matches the expected digests (recipes/expected.sha256)\n" in output
    path.write_text(path.read_text().replace(checkout.sums()["vmlinuz"], "0" * 64))
    differs = "differs from recipes/expected.sha256: out/vmlinuz; if that is intended: ./doit accept:production"
    status, output = checkout.ends("build")
    assert status == 0, "a build says so, once, and ends well"
    assert differs in output
    status, output = checkout.ends("check:production")
    assert status == 1
    assert f"error: check:production: {differs}\n" in output
