# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Inside an environment: make the checkout's copy, probe, build, hand the files out. `python driver.py SPEC`.

Standard library only and no import of the checkout: this runs before there is one. What it prints goes to
the environment's log; its exit status is doit's.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main(spec_file: str) -> int:
    """Work through the spec; see environments.py for its keys."""
    spec: dict[str, Any] = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    os.umask(spec["umask"])
    if spec["cores"]:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["cores"]])
    checkout, results = Path(spec["checkout"]), Path(spec["results"])
    for folder in spec["folders"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for mark in spec["marks"]:
        Path(mark).touch()
    _copy(Path(spec["source"]), checkout, reverse=spec["reverse"])
    environment: dict[str, str] = spec["environment"]
    if spec["localedef"]:
        subprocess.run(spec["localedef"], check=True, env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL)
    python: list[str] = spec["python"]

    def run(*argv: str, output: int | None = None) -> subprocess.CompletedProcess[str]:
        sys.stdout.flush()
        return subprocess.run(
            [*python, *argv],
            cwd=checkout, env=environment, stdin=subprocess.DEVNULL, stdout=output, text=True, check=False,
            preexec_fn=end_with_parent,
        )  # fmt: skip

    adopt_orphans()
    started = time.monotonic()
    done = run("-m", "tools.pipeline.front", *[f"toolchain:{tree}" for tree in spec["trees"]])
    if done.returncode:
        return done.returncode
    probed = run("-m", "tools.pipeline.repro.probe", spec["work"], spec["trees"][0], output=subprocess.PIPE)
    if probed.returncode:
        return probed.returncode
    (results / "facts.json").write_text(probed.stdout, encoding="utf-8")
    done = run("-m", "tools.pipeline.front", *spec["tasks"])
    reap_orphans()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = {"wall": time.monotonic() - started, "cpu": usage.ru_utime + usage.ru_stime}
    (results / "times.json").write_text(json.dumps(times), encoding="utf-8")
    if done.returncode == 0:
        for name in spec["files"]:
            _hand_out(checkout / name, results / "files" / name)
    return done.returncode


def end_with_parent() -> None:
    """In a child before it is a program: be told to end when the parent has ended, by whatever signal.

    Or a build would go on, without anybody who waits for it, when ./doit is told to end.
    """
    # PR_SET_PDEATHSIG of linux/prctl.h, see prctl(2).
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of what bubblewrap leaves unwaited-for: its processor time would count for nobody."""
    # PR_SET_CHILD_SUBREAPER of linux/prctl.h, see prctl(2).
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) != 0:
        sys.exit("prctl(PR_SET_CHILD_SUBREAPER) failed")


def reap_orphans() -> None:
    """Wait for those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


def _copy(source: Path, target: Path, *, reverse: bool) -> None:
    """Copy the checkout file by file, in an order of its own: some file systems list what came last first."""
    names = sorted(os.fsencode(p.relative_to(source)) for p in source.rglob("*") if not p.is_dir())
    for name in reversed(names) if reverse else names:
        path = target / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / os.fsdecode(name), path)
        # As git does: the executable bit is content, the rest is the umask's.
        if os.access(source / os.fsdecode(name), os.X_OK):
            path.chmod(path.stat().st_mode | (path.stat().st_mode & 0o444) >> 2)


def _hand_out(path: Path, target: Path) -> None:
    if path.is_dir():
        for member in sorted(path.rglob("*")):
            if member.is_file():
                _hand_out(member, target / member.relative_to(path))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
