# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: tests/bench/ in a process of its own, which runs doit again.

build ─┬─ bench (all, one after the other), bench:NAME ── build/bench/results.json
       └─ bench_docs: the last results into docs/benchmarks.md
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from tools.pipeline.base.errors import BuildError
from tools.pipeline.tasks.commands import checks
from tools.pipeline.tasks.doit_glue import Task, action, remove, switch
from tools.pipeline.tasks.project import Project

_RUNS = {"name": "runs", "long": "runs", "type": int, "default": 5, "help": "measurements of each side"}
_PAIRS = {"name": "pairs", "long": "pairs", "type": int, "default": 3, "help": "pairs of whole builds"}
_PROFILE = switch("profile", "where the time of a start goes, by phase and function, in place of the benchmark")
_JSON = switch("as_json", "the profile as JSON", long="json")
_BOOT = ("toolchain:boot", "toolchain:bench")
_PUBLISH = ("toolchain:publish",)
_DEBUG = "artifacts:debug"
_ENGINES = ("toolchain:boot", "toolchain:engines")


def bench(project: Project) -> Iterator[Task]:
    """Bench for all benchmarks, bench:NAME for one; a process of its own runs them one after the other."""
    clean = remove(project.build / "bench")
    yield _task(project, "bench", (), "every benchmark, one after the other (under two hours)",
                needs=(*_BOOT, _DEBUG, *_PUBLISH, *_ENGINES), params=(_RUNS, _PAIRS), clean=clean)  # fmt: skip
    one = partial(_one, project)
    yield one("sizes", "sizes of the artifacts beside their budgets")
    yield one("noop", "a build with nothing to do, beside make's (compiles a kernel for it first)", params=(_RUNS,))
    yield one("digests", "the table of launch digests, beside as many calls of sev-snp-measure", params=(_RUNS,))
    yield one("launcher_start", "a start of sev-launch, beside Python's own", params=(_RUNS,))
    yield one("publishing", "160 MB to a registry and back, beside oras", needs=_PUBLISH, params=(_RUNS,))
    yield one(
        "remote", "all of out/ from a registry or a service, executed there, beside the local cache", needs=_PUBLISH
    )
    yield one("spread", "many workers and variants, simulated from the times that steps took here (seconds)")
    yield one("boot", "power-on to agent ready under emulation, beside Debian's cloud kernel",
              needs=_BOOT, params=(_RUNS, _PROFILE, _JSON))  # fmt: skip
    yield one("scale", "power-on to agent ready with more processors and more memory",
              needs=("toolchain:boot",), params=(_RUNS,))  # fmt: skip
    yield one("qemu", "qemu-lite's start and memory, beside Debian's QEMU", needs=_BOOT, params=(_RUNS,))
    yield one("bounce", "disk and network under emulation through bounce buffers, beside the same without",
              needs=(*_BOOT, _DEBUG))  # fmt: skip
    yield one("engines", "docker run with sev-runtime, beside runc (as root)", needs=_ENGINES, params=(_RUNS,))
    yield one(
        "overhead",
        "builds of kernel and firmware, beside bare make and build (three quarters of an hour)",
        params=(_PAIRS,),
    )
    yield one("profiles", "all profiles from nothing, side by side and one after the other (half an hour)")
    yield one("repro", "./doit repro, beside one plain build (half an hour)")


def bench_docs(project: Project) -> Task:
    """The committed table."""
    return {
        "doc": "put the results of the last ./doit bench into docs/benchmarks.md",
        "actions": [action(partial(_bench, project, ("docs",)))],
        "io": {"capture": False},
    }


def _one(project: Project, name: str, doc: str, **more: Any) -> Task:
    return _task(project, f"bench:{name}", (name,), doc, **more)


def _task(
    project: Project, basename: str, names: Sequence[str], doc: str, *,
    needs: Sequence[str] = (), params: Sequence[dict[str, Any]] = (), clean: Sequence[Any] = (),
) -> Task:  # fmt: skip
    return {
        "basename": basename,
        "doc": doc,
        "actions": [action(partial(_bench, project, names))],
        "params": list(params),
        "task_dep": ["build", *needs],
        "clean": list(clean),
        "io": {"capture": False},
    }


def _bench(
    project: Project, names: Sequence[str], *, runs: int = 0, pairs: int = 0, profile: bool = False,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Run benchmarks; they print their own error line, and a goal that is missed is no error."""
    counts = {"--runs": runs, "--pairs": pairs}
    options = [word for option, count in counts.items() if count for word in (option, str(count))]
    options += [option for option, wanted in (("--profile", profile), ("--json", as_json)) if wanted]
    argv = [sys.executable, "-m", "tests.bench", *names, *options]
    checks.development_requirements(project)
    done = subprocess.run(argv, cwd=project.root, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise BuildError(f"ended with status {done.returncode}", where="tests.bench")
