# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit attack: tools/attack in a process of its own, which this side does not know otherwise.

build, fetch:sources, toolchain:* ── attack

What it needs is made first, by ./doit itself, and only where attacks are made: --list and --help need nothing.
"""

import subprocess
import sys
from functools import partial
from typing import Any

from tools.pipeline.base import children, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.tasks.doit_glue import Task, action, option, switch
from tools.pipeline.tasks.project import Project

NEEDS = ("build", "fetch:sources", "toolchain:boot", "toolchain:bench", "toolchain:build")
"""The artifacts; what firmware without defences is built from; QEMU, Debian's kernel, compilers."""

_GRACE = 20.0  # seconds for guests to be ended after an interrupt
_ANSWERS = ("list", "help")


# tools/attack/front/command.py reads and explains them.
_PARAMS = [
    switch("teach", "what a row means, and examples", long="help"),
    switch("list", "only name the attacks"),
    switch("short", "the short form, at most four minutes"),
    switch("json", "the table as JSON on standard output"),
    option("topic", "only these topics, with commas: boot, acpi, devices, storage, channel, life"),
    option("only", "only these attacks, with commas: TOPIC/KIND, or TOPIC/KIND/NAME with *"),
    option("out", "judge the artifacts in this folder, not those in out/"),
    option("kernel", "with --out: which of its files is the kernel"),
    option("initramfs", "with --out: which of its files is the initramfs"),
    option("firmware", "with --out: which of its files is the firmware"),
]


def attack(project: Project) -> Task:
    """The task."""
    return {
        "doc": "play the hostile host against the artifacts and print what held (./doit attack --help)",
        "actions": [action(partial(_attack, project))],
        "params": _PARAMS,
        "meta": {"answers": True},
        "verbosity": 2,
        "io": {"capture": False},
    }


def _attack(project: Project, *, teach: bool, **options: Any) -> None:
    given = {"help": teach, **options}
    if not any(given[name] for name in _ANSWERS):
        prepare(project)
    words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items() if value]
    argv = [sys.executable, "-m", "tools.attack", *words]
    status = children.run(argv, grace=_GRACE, cwd=project.root, stdin=subprocess.DEVNULL)
    if status == UserError.exit_status:
        raise UserError("nothing was tried", where="./doit attack", hint="./doit attack --help")
    if status != 0:
        raise BuildError("not everything held" if status == 1 else f"ended with status {status}", where="./doit attack")


def prepare(project: Project) -> None:
    """Make what it needs; what is said of that is no answer."""
    argv = [sys.executable, "-m", "tools.pipeline.front", *NEEDS]
    status = children.run(argv, grace=_GRACE, cwd=project.root, stdin=subprocess.DEVNULL, stdout=ui.stream())
    if status != 0:
        raise BuildError("what it needs could not be made", where="./doit attack")
