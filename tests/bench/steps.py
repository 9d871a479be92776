# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline's own build steps, run without the pipeline: the same sandbox command in a folder of ours."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import sandbox
from tools.pipeline.engine.sandbox import Judge
from tools.pipeline.engine.seal import Seal
from tools.pipeline.engine.store import Result, Step, Store
from tools.pipeline.guest import firmware, kernel
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.tasks import guest
from tools.pipeline.tasks.project import Project

_MARK = "made.json"


class _CaughtError(Exception):
    """Carries the step that would have run."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.name)
        self.step = step


@dataclass(frozen=True, kw_only=True)
class _Catcher(Store):
    """Gives source trees as ever, and hands out the first other step instead of running it."""

    def run(self, step: Step, *, judge: Judge | None = None) -> Result:
        """Run source steps only."""
        if step.name.startswith("source-"):
            return super().run(step, judge=judge)
        raise _CaughtError(step)


@dataclass(frozen=True, kw_only=True)
class _Catching(Project):
    """A project whose store is a catcher."""

    @property
    def store(self) -> Store:
        """The catcher, on the checkout's own store."""
        real = super().store
        return _Catcher(**{field.name: getattr(real, field.name) for field in fields(Store)})


def _caught(project: Project, build: Callable[[Project], None]) -> Step:
    catching = _Catching(**{field.name: getattr(project, field.name) for field in fields(project)})
    try:
        build(catching)
    except _CaughtError as caught:
        return caught.step
    raise BuildError("the build had no step")


def production(project: Project) -> Profile:
    """The profile that is measured."""
    return project.recipes.profile(DEFAULT_PROFILE)


def kernel_step(project: Project) -> Step:
    """The step that compiles the production kernel."""
    profile = production(project)
    target = guest.bzimage(project, profile)
    config = target.parent / "config"
    if not config.is_file():
        raise BuildError("is not there", where=str(config), hint="run ./doit build")
    cpio = project.root / guest.CPIO
    return _caught(project, lambda p: kernel.build(p, profile, config=config, cpio=cpio, target=target))


def bare(step: Step) -> Step:
    """The step without what only the pipeline wants of it: the kernel's objects in an archive."""
    if step.name != "kernel":
        return step
    return replace(step, argv=("/bin/sh", "-euc", kernel.COMPILE), outputs=("bzImage",))


def firmware_step(project: Project) -> Step:
    """The step that builds the production firmware."""
    recipe = production(project).firmware
    return _caught(project, lambda p: firmware.build(p, recipe, guest.firmware_image(project, recipe)))


def run_timed(argv: list[str], *, cwd: Path | None, log: Path, title: str, bare: bool = True) -> float:
    """Run a command to its end, output in `log`; seconds from fork to reaped. BuildError when it fails.

    `bare` gives it the empty environment of a build step, otherwise it has ours.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # What others left to be written must not be written on this one's time.
    os.sync()
    with log.open("wb") as output, ui.working(title):
        started = time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={} if bare else None,
            umask=0o022,
            check=False,
        )
        took = time.perf_counter() - started
    if done.returncode != 0:
        raise BuildError(f"ended with status {done.returncode}", where=title, hint=f"its output: {log}")
    return took


def command_in(step: Step, folder: Path) -> sandbox.Command:
    """The step's sandbox command as the store makes it, with `folder`/build and `folder`/out."""
    # Only its number of jobs matters here.
    store = Store(root=folder, shelves=folder, seal=Seal(key=b""), jobs=ambient.cpu_count())
    return store._command(step, folder)


def run_direct(step: Step, folder: Path) -> float:
    """Run the step's command from empty folders, without the pipeline; seconds. The folders stay."""
    if folder.exists():
        shutil.rmtree(folder)
    for name in ("build", "out"):
        (folder / name).mkdir(parents=True)
    argv = sandbox.bwrap_argv(command_in(step, folder))
    took = run_timed(argv, cwd=None, log=folder / "log", title=f"{step.title}, bare")
    files.write_atomically(folder / _MARK, json.dumps({"key": step.key()}).encode())
    return took


def ensure_direct(step: Step, folder: Path) -> None:
    """Have the folders of a finished direct run of this very step."""
    try:
        made = json.loads((folder / _MARK).read_bytes())
    except (OSError, ValueError):
        made = None
    if made != {"key": step.key()}:
        run_direct(step, folder)
