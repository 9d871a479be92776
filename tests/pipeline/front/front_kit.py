# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Real runs of `./doit`'s Python side on small graphs, in processes of their own: pipes, signals, a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

HEAD = """
import os, sys, time
from pathlib import Path
from tools.pipeline.base import children, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.tasks import doit_glue
from tools.pipeline.tasks.doit_glue import action

HERE = Path(__file__).parent
DOIT_CONFIG = {**doit_glue.config(HERE / "build", default="all"), "num_process": 4}


def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.01)
        children.check()


def child(name):
    # A program that says when it is there and tells its number; it would run for ever.
    script = f"echo $$ > {name}.new; mv {name}.new {name}; exec sleep 1000"
    children.run(["sh", "-c", script], cwd=HERE, start_new_session=True)


def task(name, work, **more):
    work.__name__ = name
    return {"name": name, "actions": [action(work)], **more}
"""

LIMIT = 30.0  # seconds until a run that should have ended long ago fails its test


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a run ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A folder with a dodo.py."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a run sees."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/nowhere",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *words: str, ignore: signal.Signals | None = None) -> "subprocess.Popen[str]":
        """Start a run, with a signal ignored as a shell's `&` and nohup do."""
        ignoring = ["env", f"--ignore-signal={ignore.name}"] if ignore else []
        return subprocess.Popen(
            [*ignoring, sys.executable, "-m", "tools.pipeline.front", *words],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *words: str) -> Done:
        """A run to its end."""
        with self.start(*words) as process:
            return finish(process)

    def made(self, name: str) -> str:
        """The content of a file that a task makes; waits for it."""
        path = self.folder / name
        until(path.exists)
        return path.read_text()

    def remembered(self) -> str:
        """The text of doit's state."""
        return (self.folder / "build/doit.db").read_text()


def graph(folder: Path, text: str) -> Graph:
    """A graph from the text of its dodo.py, without HEAD."""
    (folder / "dodo.py").write_text(HEAD + text)
    return Graph(folder=folder)


def finish(process: "subprocess.Popen[str]") -> Done:
    """Wait for a run that was started."""
    out, err = process.communicate(timeout=LIMIT)
    return Done(status=process.returncode, out=out or "", err=err or "")


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < limit, "it never came to be so"
        time.sleep(0.01)


def alive(number: int) -> bool:
    """Whether a process is there and no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Terminal:
    """A terminal with a run on it: what it printed, and keys for it."""

    def __init__(self, here: Graph, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(here.folder)
            environment = {**here.environment, "TERM": "xterm", "NO_COLOR": "1"}
            size = (
                f"import fcntl,struct,termios;fcntl.ioctl(0,termios.TIOCSWINSZ,struct.pack('4H',{rows},{columns},0,0))"
            )
            main = f"{size};import sys,runpy;sys.argv[1:]={list(words)!r};"
            main += "runpy.run_module('tools.pipeline.front',run_name='__main__',alter_sys=True)"
            os.execve(sys.executable, [sys.executable, "-c", main], environment)
        self.text = ""

    def read_until(self, true: Callable[[str], bool]) -> str:
        """Read what it prints until that is so."""
        limit = time.monotonic() + LIMIT
        while not true(self.text):
            assert time.monotonic() < limit, self.text
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._master, 65536).decode()
                except OSError:
                    break
        return self.text

    def press(self, keys: bytes) -> None:
        """Press keys: b"\\x03" is Ctrl-C."""
        os.write(self._master, keys)

    def end(self) -> int:
        """Read to the end; the status as of subprocess, negative for a signal."""
        self.read_until(lambda _: False)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def screen(self) -> list[str]:
        """The lines as a person would see them, for what ui.py prints."""
        lines, row, column = [""], 0, 0
        rest = self.text
        while rest:
            if rest.startswith("\x1b["):
                end = next(i for i, c in enumerate(rest[2:], 2) if c.isalpha())
                number, what = rest[2:end], rest[end]
                rest = rest[end + 1 :]
                if what == "A":
                    row -= int(number or 1)
                elif what == "J":
                    lines[row:] = [lines[row][:column]]
                else:
                    raise AssertionError(f"a sequence that is not expected: {number}{what}")
                continue
            char, rest = rest[0], rest[1:]
            if char == "\r":
                column = 0
            elif char == "\n":
                row += 1
                if row == len(lines):
                    lines.append("")
            else:
                lines[row] = lines[row][:column].ljust(column) + char + lines[row][column + 1 :]
                column += 1
        return lines
