# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The task graph. This file wires; tools/pipeline/tasks/ says what each task is, the rooms beside it work.

    _locks ── fetch ── toolchain ─┬─ source-* ── kernel-config-* ── kernel-* ──┬─ digests-* ── runtime-* ─┐
                                  ├─ source-edk2 ── firmware-* ────────────────┤                          ├─ artifacts
                                  ├─ agent ── initramfs ───────────────────────┘                          │
                                  └─ launcher, mkfs-erofs, dropins-* ─────────────────────────────────────┘
    build · build_all · check · accept · graph · matrix · cache · gc · idblock · publish · endorse · latest · cve
    report · attack · test · test_fast · test_series · test_containers · test_engines · test_bounce
    test_publish · test_scale · test_pages
    repro · rebuild · bench · lock

`./doit graph` prints the steps as they stand.
"""

from collections.abc import Iterator

from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks import doit_glue, guest, identity, inputs, outputs
from tools.pipeline.tasks.commands import attack, bench, cache, checks, matrix, publishing, report, repro
from tools.pipeline.tasks.doit_glue import Task
from tools.pipeline.tasks.project import Project

PROJECT = doit_glue.load_or_exit(Project.load, Project.check)
DOIT_CONFIG = doit_glue.config(PROJECT.build, default="build", ended=PROJECT.ended)


def task_build() -> Task:
    """Build the production artifacts into out/."""
    return {"actions": None, "task_dep": [f"artifacts:{DEFAULT_PROFILE}"]}


def task_build_debug() -> Task:
    """Build the debug artifacts (kernel log on the console, debugfs) into out-debug/."""
    return {"actions": None, "task_dep": ["artifacts:debug"]}


def task_build_all() -> Task:
    """Build the artifacts of every profile in every kernel series, each into its folder."""
    return {"actions": None, "task_dep": [f"artifacts:{profile.name}" for profile in PROJECT.recipes.all_profiles]}


def task__locks() -> Task:
    """Compare the locks with what is asked for."""
    return inputs.locks(PROJECT)


def task_fetch() -> Iterator[Task]:
    """Bring what the locks pin into the cache."""
    yield from inputs.fetch(PROJECT)


def task_toolchain() -> Iterator[Task]:
    """Set up tool trees."""
    yield from inputs.toolchain(PROJECT)


def task_steps() -> Iterator[Task]:
    """Make what the guest, the launcher and the output folders consist of."""
    yield from guest.all_steps(PROJECT)


def task_kernel_whole() -> Iterator[Task]:
    """Compare kernels that were linked with ones that are compiled whole."""
    yield from guest.whole_kernels(PROJECT)


def task_artifacts() -> Iterator[Task]:
    """Fill the output folders."""
    yield from outputs.artifacts(PROJECT)


def task_check() -> Iterator[Task]:
    """Fail unless the output folders have the expected digests."""
    yield from outputs.check(PROJECT)


def task_accept() -> Iterator[Task]:
    """Take the artifacts' digests for the expected ones."""
    yield from outputs.accept(PROJECT)


def task_graph() -> Task:
    """Print every step as it stands."""
    return guest.show_graph(PROJECT)


def task_matrix() -> Task:
    """List kernels × profiles × firmware, and what is built."""
    return matrix.matrix(PROJECT)


def task_cache() -> Task:
    """Show what lies in the cache."""
    return cache.cache(PROJECT)


def task_gc() -> Task:
    """Remove from the cache what is old and not needed."""
    return cache.gc(PROJECT)


def task_idblock() -> Task:
    """Sign an ID block for the built artifacts."""
    return identity.idblock(PROJECT)


def task_publish() -> Iterator[Task]:
    """Publish what is built."""
    yield from publishing.publish(PROJECT)


def task_cve() -> Iterator[Task]:
    """Say which CVEs are fixed, and which are not."""
    yield from report.cve(PROJECT)


def task_report() -> Iterator[Task]:
    """Make the page for people."""
    yield from report.report(PROJECT)


def task_endorse() -> Task:
    """Sign that a rebuild gave what is published."""
    return publishing.endorse(PROJECT)


def task_latest() -> Task:
    """Sign which security version it takes."""
    return publishing.latest(PROJECT)


def task_attack() -> Task:
    """Play the hostile host."""
    return attack.attack(PROJECT)


def task_test() -> Task:
    """Run all tests."""
    return checks.test(PROJECT)


def task_test_fast() -> Task:
    """Run linters and unit tests."""
    return checks.test_fast(PROJECT)


def task_test_series() -> Iterator[Task]:
    """Boot and attack the kernels of other series."""
    yield from checks.test_series(PROJECT)


def task_test_containers() -> Task:
    """Run a build step in containers."""
    return checks.test_containers(PROJECT)


def task_test_engines() -> Task:
    """Run containers in real engines."""
    return checks.test_engines(PROJECT)


def task_test_bounce() -> Task:
    """Load bounce buffers with all they can take."""
    return checks.test_bounce(PROJECT)


def task_test_publish() -> Task:
    """Publish the real artifacts and take them back."""
    return checks.test_publish(PROJECT)


def task_test_scale() -> Iterator[Task]:
    """Execute every step elsewhere."""
    yield from checks.test_scale(PROJECT)


def task_test_pages() -> Task:
    """Look at pages for people in a browser."""
    return checks.test_pages(PROJECT)


def task_rebuild() -> Task:
    """Rebuild from a published manifest."""
    return repro.rebuild(PROJECT)


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
