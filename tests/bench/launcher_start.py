# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a command of sev-launch costs before it does anything: processor time beside Python's own start."""

import os
import shutil
import statistics
import subprocess

from tests.bench import report
from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base.errors import BuildError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

# The goals: a ratio to `python3 -I -S -c pass`, and seconds on top of --help.
_RATIO, _MORE = 1.5, 0.1
# A start takes some 10 ms, and the clock's grain and neighbours a good part of that.
_STARTS = 10
_PASS = "python3 -I -S -c pass"


def measure(project: Project, *, runs: int) -> Part:
    """Ten times `runs` starts of each, in turns.

    Bytecode fits one version of Python: that of the tool tree in out/sev-launch. So the launcher is packed once more
    by the Python that is measured, and the built file gets a row without a goal.
    """
    out = project.out(project.recipes.profile(DEFAULT_PROFILE))
    python = shutil.which("python3", path=os.defpath)
    if python is None or not (out / "sev-launch").is_file():
        raise BuildError("needs python3 and a built out/sev-launch", where="launcher_start", hint="run ./doit build")
    packed = report.folder(project) / "launcher_start"
    shutil.rmtree(packed, ignore_errors=True)
    shutil.copytree(out, packed)
    program = project.root / "tools/pipeline/publish/pack_launcher.py"
    subprocess.run([python, program, project.root, packed / "sev-launch"], check=True)
    commands: dict[str, list[str]] = {
        _PASS: _PASS.split(),
        "--help": [f"{packed}/sev-launch", "--help"],
        "policy": [f"{packed}/sev-launch", "policy", "0x30000"],
        "digest": [f"{packed}/sev-launch", "digest"],
        "built --help": [f"{out}/sev-launch", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    # Turn 0 brings the files into memory.
    for number in range(_STARTS * runs + 1):
        for name, argv in commands.items():
            took = _cpu(argv)
            if number:
                times[name].append(took)
    medians = {name: statistics.median(found) for name, found in times.items()}
    base, first = medians[_PASS], medians["--help"]
    rows = [
        Row(
            what=f"processor time of `sev-launch {name}`",
            measured=f"{seconds(medians[name])} ({medians[name] / base:.2f} times)",
            beside=f"{seconds(base)} (`{_PASS}`)",
            goal=f"≤ {_RATIO} times",
            met=medians[name] <= _RATIO * base,
        )
        for name in ("--help", "policy")
    ]
    rows += [
        Row(
            what="the same of `sev-launch digest`",
            measured=seconds(medians["digest"]),
            beside=f"{seconds(first)} (`--help`)",
            goal=f"≤ {_MORE} s more",
            met=medians["digest"] <= first + _MORE,
        ),
        Row(
            what="the same of out/sev-launch `--help`, whose bytecode is for the tool tree's Python",
            measured=f"{seconds(medians['built --help'])} ({medians['built --help'] / base:.2f} times)",
            beside=_version(python),
            goal="",
            met=None,
        ),
    ]
    return Part(rows=tuple(rows), data={name: spread(found) for name, found in times.items()})


def _version(python: str) -> str:
    return subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()


def _cpu(argv: list[str]) -> float:
    """Seconds of processor time, user and system, of one run; the kernel counts them."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1, 2)]
    child = os.posix_spawnp(argv[0], argv, {"PATH": os.defpath}, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    os.close(null)
    if status:
        raise BuildError(f"{' '.join(argv)} failed", where="launcher_start", hint="run ./doit build")
    return usage.ru_utime + usage.ru_stime
