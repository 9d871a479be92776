# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The one door through which build steps start programs: bubblewrap on the pinned tool tree.

Inside: no network, no host files, constant paths, an environment made from nothing, uid 1000. What is not
mounted here cannot leak into an artifact.
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.base import ambient, children, ui
from tools.pipeline.base import files as digest
from tools.pipeline.base.errors import BuildError, UserError

EPOCH = 1735689600
"""SOURCE_DATE_EPOCH, seconds: 2025-01-01T00:00:00Z. Any constant will do; tools refuse dates before 1980."""

UID = 1000
"""User and group inside, whoever calls."""

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

_TAIL = 20  # lines of a failed step's log that are shown


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A host path that appears inside; read-only unless said otherwise."""

    host: Path
    inside: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Command:
    """One program in the sandbox."""

    argv: tuple[str, ...]
    tree: Path
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    chdir: str = WORKING_DIRECTORY
    personality: tuple[str, ...] = ()


def bwrap_argv(command: Command) -> list[str]:
    """The whole command line, host side."""
    # fmt: off
    argv = [
        bwrap_program(),
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--uid", str(UID),
        "--gid", str(UID),
        "--cap-drop", "ALL",
        "--hostname", "sandbox",
        "--clearenv",
        "--ro-bind", os.fspath(command.tree), "/",
        "--dev", "/dev",
        "--proc", "/proc",
        "--tmpfs", "/tmp",
        # Holds the mount points of single files, which could not be made in the read-only tree.
        "--tmpfs", "/inputs",
    ]
    # fmt: on
    mounts, environment = _clock()
    for name, value in sorted({**ENVIRONMENT, **command.environment, **environment}.items()):
        argv += ["--setenv", name, value]
    for mount in (*command.mounts, *mounts):
        argv += ["--bind" if mount.writable else "--ro-bind", os.fspath(mount.host), mount.inside]
    return [*argv, "--chdir", command.chdir, "--", *command.personality, *command.argv]


def _clock() -> tuple[tuple[Mount, ...], Mapping[str, str]]:
    """What shifts the clock inside, when the reproducibility check asks for it; else nothing."""
    shift = ambient.sandbox_clock()
    if shift is None:
        return (), {}
    library, offset = shift
    inside = "/inputs/libfaketime.so.1"
    return (Mount(host=library, inside=inside),), {"LD_PRELOAD": inside, **clock_settings(offset)}


def clock_settings(offset: str) -> Mapping[str, str]:
    """libfaketime's settings for a clock that is `offset` (as in +210d) ahead."""
    # The times of files stay real, and so does the clock that only measures.
    return {"FAKETIME": offset, "NO_FAKE_STAT": "1", "DONT_FAKE_MONOTONIC": "1"}


Judge = Callable[[str, int], object]
"""Reads a whole log and the exit status, and raises BuildError with a better line than the generic one."""


def run(command, *, title, log, replay):
    argv = bwrap_argv(command)
    log.parent.mkdir(parents=True, exist_ok=True)
    _write_replay(replay, command, argv)
    counter = _LineCounter(log)
    with log.open("wb") as output, ui.working(title, detail=counter.describe):
        return _wait(argv, output.fileno())


def output_of(command: Command, *, limit: int = 16 << 20) -> bytes:
    """Standard output of a short command; its standard error stands in the BuildError when it fails."""
    with children.running(
        bwrap_argv(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        umask=0o022,
    ) as process:
        out, err = process.communicate()
    if len(out) > limit:
        raise BuildError(f"{shlex.join(command.argv)} wrote {len(out)} bytes, more than {limit}")
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise BuildError(f"{shlex.join(command.argv)} ended with status {process.returncode}: {last[0]}")
    return out


def raise_failure(title: str, status: int, *, log: Path, replay: Path) -> None:
    """Show the end of the log and raise the one-line error."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        lines = file.read().decode(errors="replace").splitlines()[-_TAIL:]
    for text in lines:
        ui.line(ui.paint(f"   | {text}", "2"))
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    raise BuildError(f"the step {how}", where=title, hint=f"whole log: {log}; run it again: sh {replay}")


def _wait(argv: list[str], output: int) -> int:
    # --die-with-parent only covers our own death, not an interrupt that we survive.
    return children.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={}, umask=0o022)


def bwrap_program() -> str:
    """Where bubblewrap is; UserError when it is nowhere."""
    path = shutil.which("bwrap")
    if path is None:
        raise UserError(
            "bubblewrap (bwrap) is not installed", hint="apt-get install bubblewrap, or your system's package"
        )
    return path


def _write_replay(path: Path, command: Command, argv: list[str]) -> None:
    """A script that empties the writable folders and runs the step again, or a shell in its place."""
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
    digest.write_atomically(path, text.encode(), mode=0o755)


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
                while chunk := file.read(1 << 20):
                    self._offset += len(chunk)
                    self._lines += chunk.count(b"\n")
        except OSError:
            return ""
        return f"{self._lines} log lines"


def available() -> None:
    """Raise UserError with the remedy when this machine does not let us make sandboxes."""
    # fmt: off
    probe = subprocess.run(
        [bwrap_program(), "--unshare-all", "--uid", "1000", "--gid", "1000", "--ro-bind", "/", "/",
         "--", "true"],
        stdin=subprocess.DEVNULL, capture_output=True, env={"PATH": "/usr/bin:/bin"}, check=False,
    )
    # fmt: on
    if probe.returncode != 0:
        reason = probe.stderr.decode(errors="replace").strip()
        environment = ambient.host_environment("container")
        place = " in this container" if environment else ""
        raise UserError(
            f"bubblewrap cannot make a sandbox{place}: {reason}",
            hint="allow unprivileged user namespaces or run as root",
        )
