# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The programs of the pipeline's own steps, run without the pipeline: same sandbox, same inputs, a folder of ours."""

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import CheckoutFile, Output, Step
from tools.pipeline.guest import kernel, source_tree
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.repro.driver import adopt_orphans, reap_orphans
from tools.pipeline.sandbox import sandbox
from tools.pipeline.tasks.project import Project

_MARK = "made.json"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a program that has ended: on the clock, and of all processors."""

    wall: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class Bare:
    """What a person would type in place of a step, on sources that are unpacked: `prepare` does that, untimed.

    `output` is the file below /out that both must make alike; `edits` changes texts of input files.
    """

    step: Step
    prepare: str
    script: str
    output: str
    edits: Mapping[str, tuple[str, str]]


def production(project: Project) -> Profile:
    """The profile that is measured."""
    return project.recipes.profile(DEFAULT_PROFILE)


def bare_kernel(project: Project) -> Bare:
    """`make bzImage` of the production kernel; the step also unpacks the source and keeps the objects."""
    step = project.plan.kernel(production(project).kernel, builtin=False)
    # Both must do the same work.
    assert kernel._COMPILE in step.argv[-1]
    prepare = f"{source_tree.UNPACK} && mkdir /build/obj"
    return Bare(step=step, prepare=prepare, script=kernel._COMPILE, output=kernel.IMAGE, edits={})


def bare_firmware(project: Project) -> Bare:
    """edk2's own `build` with one thread a CPU; the step gives it as many as it gets tokens."""
    step = project.plan.firmware(production(project).firmware)
    first = f"{source_tree.UNPACK} && "
    assert step.argv[-1].startswith(first)
    return Bare(
        step=step,
        prepare=source_tree.UNPACK,
        script=step.argv[-1].removeprefix(first),
        output="OVMF.fd",
        edits={"/inputs/build.sh": ("jobs=1 tokens=", f"jobs={ambient.cpu_count()} tokens=")},
    )


def command_in(project: Project, bare: Bare, folder: Path, script: str) -> sandbox.Command:
    """A shell script in the step's sandbox, with what lies in `folder`: given, build and out."""
    return sandbox.Command(
        argv=("/bin/sh", "-euc", script),
        tree=project.engine.check_tools(bare.step.tools).path,
        mounts=(
            *(sandbox.Mount(host=path, inside=f"/{path.name}") for path in sorted((folder / "given").iterdir())),
            sandbox.Mount(host=folder / "build", inside="/build", writable=True),
            sandbox.Mount(host=folder / "out", inside="/out", writable=True),
        ),
        environment={**bare.step.environment, "MAKEFLAGS": f"-j{ambient.cpu_count()}"},
        personality=sandbox.PERSONALITY,
    )


def run_bare(project: Project, bare: Bare, folder: Path) -> Times:
    """Lay out the inputs, unpack, then run the script on the clock. The folders stay."""
    if folder.exists():
        shutil.rmtree(folder)
    for name in ("given", "build", "out"):
        (folder / name).mkdir(parents=True)
    _lay_out(project, bare, folder)
    title = f"{bare.step.title}, bare"
    with ui.working(f"{title}: unpacking"):
        sandbox.output_of(command_in(project, bare, folder, bare.prepare))
    argv = sandbox.bwrap_argv(command_in(project, bare, folder, bare.script))
    took = run_timed(argv, log=folder / "log", title=title, environment={})
    files.write_atomically(folder / _MARK, json.dumps(_description(project, bare)).encode())
    return took


def ensure_bare(project: Project, bare: Bare, folder: Path) -> None:
    """Have the folders of a finished run of this very script on these very inputs."""
    try:
        made = json.loads((folder / _MARK).read_bytes())
    except (OSError, ValueError):
        made = None
    if made != _description(project, bare):
        run_bare(project, bare, folder)


def _description(project: Project, bare: Bare) -> dict[str, str | None]:
    return {"key": project.engine.key(bare.step), "prepare": bare.prepare, "script": bare.script}


def _lay_out(project: Project, bare: Bare, folder: Path) -> None:
    for inside, reference in bare.step.inputs.items():
        target = folder / "given" / inside.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        match reference:
            case Output(step=needed, name=name):
                project.engine.copy(needed, name, target)
            case CheckoutFile(path=path):
                shutil.copyfile(project.root / path, target)
            case _:
                raise BuildError(f"{inside} is neither a step's output nor a file", where=bare.step.name)
        target.chmod(0o644)
    for inside, (old, new) in bare.edits.items():
        target = folder / "given" / inside.removeprefix("/")
        text = target.read_text()
        if text.count(old) != 1:
            raise BuildError(f"has {text.count(old)} times {old!r}, not once", where=inside)
        target.write_text(text.replace(old, new))


def run_timed(
    argv: list[str], *, log: Path, title: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Times:
    """Run a command to its end, output in `log`; from fork to reaped. BuildError when it fails.

    `environment` None: ours.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    # What others left to be written must not be written on this one's time.
    os.sync()
    with log.open("wb") as output, ui.working(title):
        used, started = _children_cpu(), time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            umask=0o022,
            check=False,
        )
        wall = time.perf_counter() - started
    reap_orphans()
    if done.returncode != 0:
        raise BuildError(f"ended with status {done.returncode}", where=title, hint=f"its output: {log}")
    return Times(wall=wall, cpu=_children_cpu() - used)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def make_argv(project: Project, bare: Bare, folder: Path, goal: str) -> list[str]:
    """make's last call alone, in the folders of a finished bare kernel."""
    return sandbox.bwrap_argv(command_in(project, bare, folder, kernel._make(goal)))
