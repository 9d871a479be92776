# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The one door through which build steps start programs: bubblewrap on the pinned tool tree.

Inside: no network, no host files, constant paths, an environment made from nothing, uid 1000. What is not
mounted here cannot leak into an artifact. Nor can a step reach out: root's steps run as nobody (confine.py), there
are no capabilities, namespaces or set-uid programs to be had, and few system calls that a build does not need
(seccomp.py).
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.pipeline.base import ambient, children, files, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sandbox import confined, obstacles

EPOCH = 1735689600
"""SOURCE_DATE_EPOCH, seconds: 2025-01-01T00:00:00Z. Any constant will do; tools refuse dates before 1980."""

WORKING_DIRECTORY = "/build"

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/bin:/usr/sbin",
    "HOME": "/build",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}

PERSONALITY = ("setarch", "x86_64", "--")
"""Puts a step under the plain x86-64 personality: what `uname` says must not come from the caller's, and
edk2's makefiles choose their compiler by it. For trees that have util-linux."""

UID = confined.INSIDE
"""uid and gid of a step, as it sees itself."""

UMASK = 0o022

CLOCK_MARK = "of-a-check"
"""A file in a cache of the reproducibility check's own: only there may a step's clock be shifted."""

_LOOK = 64  # MiB of a log in which lines are counted at a time

# Seconds, more than none: confine.py is asked to end, not killed, so that it ends what it started.
_GRACE = 0.01
# Started with -c: a module's name would be searched for in the current folder.
_ENTER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from tools.pipeline.sandbox.confine import main; main(sys.argv[1:])"
)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A host path that appears inside; read-only unless said otherwise."""

    host: Path
    inside: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Command:
    """One program in the sandbox.

    `memory` is 0, or the bytes that /build may take in memory, in place of what is mounted there; it goes with the
    sandbox.
    """

    argv: tuple[str, ...]
    tree: Path
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    chdir: str = WORKING_DIRECTORY
    personality: tuple[str, ...] = ()
    memory: int = 0


def bwrap_argv(command: Command) -> list[str]:
    """The whole command line: confine.py, the command line of bubblewrap that it completes, the program."""
    # fmt: off
    argv = [
        *_confined(),
        "--clearenv",
        "--ro-bind", os.fspath(command.tree), "/",
        "--dev", "/dev",
        *_PROC,
        "--tmpfs", "/tmp",
        # Holds the mount points of single files, which could not be made in the read-only tree.
        "--tmpfs", "/inputs",
    ]
    # fmt: on
    mounts, environment = _clock()
    if command.memory:
        argv += ["--perms", "0755", "--size", str(command.memory), "--tmpfs", WORKING_DIRECTORY]
    for name, value in sorted({**ENVIRONMENT, **command.environment, **environment}.items()):
        argv += ["--setenv", name, value]
    for mount in (*command.mounts, *mounts):
        if command.memory and mount.inside == WORKING_DIRECTORY:
            continue
        argv += ["--bind" if mount.writable else "--ro-bind", os.fspath(mount.host), mount.inside]
    return [*argv, "--chdir", command.chdir, "--", *command.personality, *command.argv]


# The second hides what the first would let root write: settings of the whole machine.
_PROC = ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys")


def _confined() -> list[str]:
    """The beginning that every sandbox has."""
    # fmt: off
    return [
        sys.executable, "-I", "-S", "-B", "-c", _ENTER, os.fspath(ambient.repository_root()),
        bwrap_program(),
        # Not --unshare-all, which means user namespaces only where they work: confine.py adds them.
        "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent",
        "--new-session",
        "--uid", str(UID),
        "--gid", str(UID),
        "--cap-drop", "ALL",
        "--hostname", "sandbox",
    ]
    # fmt: on


def _clock() -> tuple[tuple[Mount, ...], Mapping[str, str]]:
    """What shifts the clock inside, when the reproducibility check asks for it; else nothing."""
    shift = ambient.sandbox_clock()
    if shift is None:
        return (), {}
    library, offset = shift
    inside = "/tmp/libfaketime.so.1"
    return (Mount(host=library, inside=inside),), {"LD_PRELOAD": inside, **clock_settings(offset)}


def check_clock(cache: Path) -> None:
    """Raise UserError when results of steps whose clock is shifted would go into an ordinary cache.

    The library that shifts it is in no step's key. Whoever reads or writes results calls this first.
    """
    if ambient.sandbox_clock() is not None and not (cache / CLOCK_MARK).is_file():
        raise UserError(
            "is for the reproducibility check alone, which has a cache of its own",
            where="SEV_ARTIFACTS_CLOCK",
            hint="unset it",
        )


def clock_settings(offset: str) -> Mapping[str, str]:
    """libfaketime's settings for a clock that is `offset` (as in +210d) ahead."""
    # The times of files stay real, and so does the clock that only measures.
    return {"FAKETIME": offset, "NO_FAKE_STAT": "1", "DONT_FAKE_MONOTONIC": "1"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended: `status` as subprocess gives it (negative for a signal), its output in `log`."""

    status: int
    log: Path
    replay: Path


def run(command: Command, *, title: str, log: Path, replay: Path) -> Outcome:
    """Run a build step to its end with output in `log`; `replay` then holds a script that runs it again.

    What the exit status means is the caller's to say.
    """
    argv = bwrap_argv(command)
    log.parent.mkdir(parents=True, exist_ok=True)
    _write_replay(replay, _alone(command))
    counter = _LineCounter(log)
    with (
        log.open("wb") as output,
        ui.working(title, detail=counter.describe),
        _started(argv, stdout=output.fileno(), stderr=subprocess.STDOUT) as process,
    ):
        status = process.wait()
    return Outcome(status=status, log=log, replay=replay)


def output_of(command: Command, *, limit: int = 16 << 20) -> bytes:
    """Standard output of a short command; its standard error stands in the BuildError when it fails."""
    with _started(bwrap_argv(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    if len(out) > limit:
        raise BuildError(f"{shlex.join(command.argv)} wrote {len(out)} bytes, more than {limit}")
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise BuildError(f"{shlex.join(command.argv)} ended with status {process.returncode}: {last[0]}")
    return out


@contextmanager
def _started(argv: list[str], *, stdout: int, stderr: int) -> Iterator["subprocess.Popen[bytes]"]:
    with children.running(
        argv,
        grace=_GRACE,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        # By which it notices when we were gone before it could ask the kernel to be told.
        env={confined.PARENT: str(os.getpid())},
        umask=UMASK,
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            process.wait()
            raise


def bwrap_program() -> str:
    """Where bubblewrap is; UserError when it is nowhere."""
    path = shutil.which("bwrap")
    if path is None:
        raise UserError(
            "bubblewrap (bwrap) is not installed", hint="apt-get install bubblewrap, or your system's package"
        )
    return path


def _alone(command: Command) -> Command:
    """The command without the job server that it shares with others, and on disk, where people can look into it."""
    command = replace(command, memory=0)
    # The server's fifo goes with the build.
    mounts = tuple(mount for mount in command.mounts if not mount.host.is_fifo())
    if mounts == command.mounts:
        return command
    flags = command.environment.get("MAKEFLAGS", "").partition(" --jobserver-auth=")[0]
    return replace(command, mounts=mounts, environment={**command.environment, "MAKEFLAGS": flags})


def _write_replay(path: Path, command: Command) -> None:
    """A script that empties the writable folders and runs the step again, or a shell in its place."""
    argv = bwrap_argv(command)
    folders = [shlex.quote(os.fspath(m.host)) for m in command.mounts if m.writable]
    opener = shlex.join(argv[: argv.index("--")])
    text = "\n".join(
        [
            "#!/bin/sh",
            "# Runs one build step again with the pinned tools; `--shell` opens a shell in its place.",
            "set -eu",
            "umask 022",
            *[f"mkdir -p {folder}" for folder in folders],
            f'if [ "${{1:-}}" = --shell ]; then exec {opener} --setenv TERM "${{TERM:-dumb}}" -- bash; fi',
            # Not `rm -rf FOLDER/*`, which leaves hidden files of the failed run behind.
            *[f"find {folder} -mindepth 1 -delete" for folder in folders],
            f"exec env -i {shlex.join(argv)} </dev/null",
            "",
        ]
    )
    # As the kernel was given it: a path may be no UTF-8.
    files.write_atomically(path, os.fsencode(text), mode=0o755)


class _LineCounter:
    """Counts the log's new lines, the cheapest honest measure of progress."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._lines = 0

    def describe(self) -> str:
        """How many lines the log has by now."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                # Not to its end: a step can make it as long as it likes, and longer than it wrote.
                for _ in range(_LOOK):
                    chunk = file.read(1 << 20)
                    self._offset += len(chunk)
                    self._lines += chunk.count(b"\n")
        except OSError:
            return ""
        return f"{self._lines} log lines"


def available() -> None:
    """Raise UserError with the remedy when this machine does not let us make sandboxes; takes 0.1 s."""
    argv = [*_confined(), "--ro-bind", "/", "/", "--dev", "/dev", *_PROC, "--", "true"]
    with _started(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = process.communicate()[0].decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        where, remedy = obstacles.remedy()
        # bubblewrap goes on with a guess and a remedy, of which ours are better.
        reason = said[-1].partition(", likely")[0] if said else f"status {process.returncode}"
        raise UserError(f"bubblewrap cannot make a sandbox{where} ({reason})", hint=remedy)
