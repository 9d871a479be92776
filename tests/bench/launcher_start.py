# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a command of sev-launch costs before it does anything: processor time beside Python's own start.

Of the tool tree's Python, in the sandbox, and of every other that this machine has.
"""

import json
import os
import shutil
import statistics
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report, starts
from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount
from tools.pipeline.tasks.project import Project

# The goals: a ratio to `python3 -I -S -c pass`, and seconds on top of --help.
_RATIO, _MORE = 1.5, 0.1
# A start takes some 10 ms, and the clock's grain and neighbours a good part of that.
_STARTS = 10
_PASS = "python3 -I -S -c pass"
_PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(11, 20)))
_ABOUT = (
    "import platform, sys; tag = sys.implementation.cache_tag;"
    " print(sys.executable, tag, platform.python_version(), sys.version_info >= (3, 11))"
)


@dataclass(frozen=True, kw_only=True)
class _Python:
    """A Python of this machine. `tag` is its name for files of bytecode."""

    path: str
    tag: str
    version: str


def measure(project: Project, *, runs: int) -> Part:
    """Ten times `runs` starts of each, in turns; goals are for the Pythons whose bytecode is in the file."""
    out = project.out(project.recipes.profile(DEFAULT_PROFILE))
    if not (out / "sev-launch").is_file():
        raise BuildError("is not there", where=str(out / "sev-launch"), hint="run ./doit build")
    with zipfile.ZipFile(out / "sev-launch") as archive:
        packed = {Path(name).stem for name in archive.namelist() if name.startswith("bytecode/")}
    rounds = _STARTS * runs
    report.say("the tool tree's Python")
    found = {"the tool tree's Python": (_in_the_tree(project, out, rounds), True)}
    for python in _on_this_machine():
        label = f"Python {python.version}"
        report.say(f"{label}: {python.path}")
        found[label] = (_of(python, out, rounds, report.folder(project) / "launcher_start"), python.tag in packed)
    rows = [row for label, (times, fits) in found.items() for row in _rows(label, times, fits=fits)]
    data = {label: {name: spread(taken) for name, taken in times.items()} for label, (times, _) in found.items()}
    return Part(rows=tuple(rows), data=data)


def _rows(label: str, times: Mapping[str, list[float]], *, fits: bool) -> list[Row]:
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    base, first, digest = medians[_PASS], medians["--help"], medians["digest"]
    kind = label if fits else f"{label}, without bytecode"
    rows = [
        Row(
            what=f"processor time of `sev-launch {name}`, {kind}",
            measured=f"{seconds(medians[name])} ({medians[name] / base:.2f} times)",
            beside=f"{seconds(base)} (`{_PASS}`)",
            goal=f"≤ {_RATIO} times" if fits else "",
            met=medians[name] <= _RATIO * base if fits else None,
        )
        for name in ("--help", "policy")
    ]
    last = Row(
        what=f"the same of `sev-launch digest`, {kind}",
        measured=seconds(digest),
        beside=f"{seconds(first)} (`--help`)",
        goal=f"≤ {_MORE} s more" if fits else "",
        met=digest <= first + _MORE if fits else None,
    )
    return [*rows, last]


def _commands(python: str, out: str) -> dict[str, list[str]]:
    return {
        _PASS: [python, *_PASS.split()[1:]],
        "--help": [f"{out}/sev-launch", "--help"],
        "policy": [f"{out}/sev-launch", "policy", "0x30000"],
        "digest": [f"{out}/sev-launch", "digest", "--unbound"],
    }


def _in_the_tree(project: Project, out: Path, rounds: int) -> dict[str, list[float]]:
    """With its library compiled, as Debian's maintainer scripts would have left it."""
    tree = project.trees.ensure("python").path

    def said(*argv: str, mounts: tuple[Mount, ...] = ()) -> bytes:
        return sandbox.output_of(Command(argv=argv, tree=tree, mounts=mounts))

    place = said("python3", "-c", "import os; print(os.path.dirname(os.__file__))").decode().strip()
    library = _empty(report.folder(project) / "launcher_start")
    script = f"cp -a {place}/. /out && python3 -m compileall -q -s /out -p {place} /out"
    said("/bin/sh", "-euc", script, mounts=(Mount(host=library, inside="/out", writable=True),))
    program, release = "/inputs/starts.py", "/inputs/out"
    answer: dict[str, list[float]] = json.loads(
        said(
            *("python3", program, str(rounds), "/usr/bin", json.dumps(_commands("/usr/bin/python3", release))),
            mounts=(
                Mount(host=library, inside=place),
                Mount(host=Path(starts.__file__), inside=program),
                Mount(host=out, inside=release),
            ),
        )
    )
    return answer


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _of(python: _Python, out: Path, rounds: int, folder: Path) -> dict[str, list[float]]:
    """As the first python3 on PATH, which is what sev-launch starts."""
    _empty(folder)
    (folder / "python3").symlink_to(python.path)
    commands = _commands(str(folder / "python3"), str(out))
    try:
        return starts.times(commands, rounds=rounds, path=f"{folder}:{os.defpath}")
    except OSError as error:
        raise BuildError(str(error), where="launcher_start", hint="run ./doit build") from None


def _on_this_machine() -> list[_Python]:
    """Those that can run the launcher, the system's own first, one for each version of bytecode."""
    path = f"{os.defpath}:{ambient.host_environment('PATH').get('PATH', '')}"
    found: dict[str, _Python] = {}
    for name in _PYTHONS:
        program = shutil.which(name, path=path)
        if program is None:
            continue
        # What is on PATH may be a script that chooses a Python, or none that works.
        done = subprocess.run([program, "-I", "-c", _ABOUT], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.endswith("True\n"):
            place, tag, version, _ = done.stdout.rsplit(maxsplit=3)
            found.setdefault(tag, _Python(path=place, tag=tag, version=version))
    return list(found.values())
