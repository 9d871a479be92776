# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The task graph. This file wires; tools/pipeline/tasks/ says what each task is, the modules beside it work.

fetch ─ toolchain ─┬─ source:linux ── kernel_config ── kernel ──┬─ digests ── runtime ─┐
                   ├─ source:edk2 ── firmware ──────────────────┤                      │
                   ├─ agent ── initramfs ───────────────────────┘                      │
                   ├─ launcher ────────────────────────────────────────────────────────┤
                   └─ kata ────────────────────────────────────────────────────────────┴─ manifest─ artifacts
build · idblock · test · test_fast · repro · rebuild · accept · bench · lock
"""

from collections.abc import Iterator

from tools.pipeline.guest import agent
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks import bench, checks, doit_glue, guest, identity, inputs, outputs, repro
from tools.pipeline.tasks.doit_glue import Task
from tools.pipeline.tasks.project import Project

PROJECT = doit_glue.load_or_exit(Project.load, Project.check_settings, agent.manifest)
DOIT_CONFIG = doit_glue.config(PROJECT, default="build")


def task_build() -> Task:
    """Build the production artifacts into out/."""
    return {"actions": None, "task_dep": [f"artifacts:{DEFAULT_PROFILE}"]}


def task_build_debug() -> Task:
    """Build the debug artifacts (kernel log on the console, debugfs) into out-debug/."""
    return {"actions": None, "task_dep": ["artifacts:debug"]}


def task_fetch() -> Iterator[Task]:
    """Bring what the locks pin into the cache."""
    yield from inputs.fetch(PROJECT)


def task_toolchain() -> Iterator[Task]:
    """Set up tool trees."""
    yield from inputs.toolchain(PROJECT)


def task_source() -> Iterator[Task]:
    """Unpack and patch sources."""
    yield from guest.sources(PROJECT)


def task_kernel_config() -> Iterator[Task]:
    """Configure the kernel and audit the result."""
    yield from guest.kernel_config(PROJECT)


def task_kernel() -> Iterator[Task]:
    """Compile the kernel."""
    yield from guest.kernels(PROJECT)


def task_kernel_whole() -> Iterator[Task]:
    """Compare kernels that were linked with ones that are compiled whole."""
    yield from guest.whole_kernels(PROJECT)


def task_firmware() -> Iterator[Task]:
    """Build OVMF."""
    yield from guest.firmwares(PROJECT)


def task_agent() -> Task:
    """Compile the guest agent."""
    return guest.agents(PROJECT)


def task_initramfs() -> Task:
    """Pack the initramfs."""
    return guest.initramfs(PROJECT)


def task_launcher() -> Task:
    """Pack sev-launch."""
    return outputs.launcher(PROJECT)


def task_digests() -> Iterator[Task]:
    """Compute the launch digests."""
    yield from outputs.digests(PROJECT)


def task_runtime() -> Iterator[Task]:
    """Render runtime.toml."""
    yield from outputs.runtime(PROJECT)


def task_kata() -> Iterator[Task]:
    """Render drop-ins for Kata Containers."""
    yield from outputs.kata(PROJECT)


def task_manifest() -> Iterator[Task]:
    """List inputs, steps and outputs."""
    yield from outputs.manifests(PROJECT)


def task_artifacts() -> Iterator[Task]:
    """Fill the output folders."""
    yield from outputs.artifacts(PROJECT)


def task_idblock() -> Task:
    """Sign an ID block for the built artifacts."""
    return identity.idblock(PROJECT)


def task_test() -> Task:
    """Run all tests."""
    return checks.test(PROJECT)


def task_test_fast() -> Task:
    """Run linters and unit tests."""
    return checks.test_fast(PROJECT)


def task_rebuild() -> Task:
    """Rebuild from a published manifest."""
    return repro.rebuild(PROJECT)


def task_accept() -> Task:
    """Take the artifacts' digests for the expected ones."""
    return repro.accept(PROJECT)


def task_repro() -> Iterator[Task]:
    """Build twice from nothing in environments that differ, and compare."""
    yield from repro.repro(PROJECT)


def task_bench() -> Iterator[Task]:
    """Run the benchmarks; no verdict, only numbers."""
    yield from bench.bench(PROJECT)


def task_bench_docs() -> Task:
    """Write the last benchmark results into docs/benchmarks.md."""
    return bench.bench_docs(PROJECT)


def task_lock() -> Task:
    """Re-resolve the pins."""
    return checks.relock(PROJECT)
