# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a person sees while things run, several at once.

On a terminal what runs is a region of live lines at the bottom, and all other lines go above it:

    done         firmware:RELEASE-1MB  4 min 07 s
       kernel:production: compiling the kernel  12.0 s  812 log lines
       kernel:debug: compiling the kernel  9.5 s  640 log lines

Elsewhere: a line when something starts, signs of life, a line when it ends. Lines are always whole.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TextIO

from tools.pipeline.base import ambient, children

_PLAIN_INTERVAL = 20.0  # seconds between plain lines: enough to show life, few enough for a CI log
_TERMINAL_INTERVAL = 0.5
_MARKS = {"done": "32", "failed": "31", "interrupted": "31"}

_TASK: ContextVar[str] = ContextVar("task", default="")


def stream() -> TextIO:
    """Progress goes to standard error."""
    return ambient.standard_error()


def paint(text: str, code: str, out: TextIO | None = None) -> str:
    """Wrap the text in an ANSI colour where colour is wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if ambient.colour_wanted(out or stream()) else text


def duration(seconds: float) -> str:
    """4.2 s, 3 min 07 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def size(count: int) -> str:
    """Bytes for people: 812 B, 31 KiB, 3.9 MiB."""
    if count < 1024:
        return f"{count} B"
    value = count / 1024
    for unit in ("KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


@dataclass(eq=False, kw_only=True)
class _Work:
    """Something that runs."""

    title: str
    detail: Callable[[], str] | None
    started: float = field(default_factory=ambient.monotonic)

    def state(self) -> str:
        extra = self.detail() if self.detail else ""
        took = duration(ambient.monotonic() - self.started)
        return f"   {self.title}  {took}{'  ' + extra if extra else ''}"


class _Screen:
    """What runs, and the lines that show it. Everything that is printed passes through its lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: list[_Work] = []
        self._idle = threading.Event()
        self._live: list[str] = []  # what the region showed last
        self._drawn = 0  # how many lines it has on the terminal now

    def write(self, text: str, out: TextIO | None = None) -> None:
        """Print whole lines above the region. Errors of `out` are the caller's, those of progress nobody's."""
        with self._lock:
            self._erase()
            if out is None:
                self._put(text)
            else:
                out.write(text)
                out.flush()
            self._draw()

    def start(self, work: _Work) -> None:
        with self._lock:
            self._running.append(work)
            first = len(self._running) == 1
            if not ambient.is_terminal(stream()):
                self._put(f"   {work.title} …\n")
            if first:
                self._idle = threading.Event()
                threading.Thread(target=self._beat, args=(self._idle,), daemon=True).start()

    def end(self, work: _Work, how: str) -> None:
        with self._lock:
            if work not in self._running:
                return
            self._running.remove(work)
            if not self._running:
                self._idle.set()
            self._live = [line for line in self._live if not line.startswith(f"   {work.title}  ")]
            took = duration(ambient.monotonic() - work.started)
            self.write(f"   {work.title}  {paint(how, _MARKS[how])}, {took}\n")

    def end_all(self, how: str) -> None:
        with self._lock:
            for work in tuple(self._running):
                self.end(work, how)

    def _beat(self, idle: threading.Event) -> None:
        live = ambient.is_terminal(stream())
        while not idle.wait(_TERMINAL_INTERVAL if live else _PLAIN_INTERVAL):
            # Outside the lock: it may read a long log.
            states = [(work, work.state()) for work in tuple(self._running)]
            with self._lock:
                lines = [state for work, state in states if work in self._running]
                if not live:
                    self._put("".join(f"{line}\n" for line in lines))
                else:
                    self._erase()
                    self._live = lines
                    self._draw()

    def _draw(self) -> None:
        if not self._live:
            return
        columns, rows = ambient.terminal_size(stream())
        shown = self._live[: max(1, rows // 2)]
        if len(shown) < len(self._live):
            shown[-1] = f"   … and {len(self._live) - len(shown) + 1} more"
        # One column stays free: a full line would move the cursor to the next.
        self._put("\n".join(line[: columns - 1] for line in shown))
        self._drawn = len(shown)

    def _erase(self) -> None:
        if self._drawn:
            up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
            self._put(f"\r{up}\x1b[J")
            self._drawn = 0

    @staticmethod
    def _put(text: str) -> None:
        # A terminal that was closed, a full disk behind 2>log: nobody is left to be told.
        with suppress(OSError, ValueError):
            out = stream()
            out.write(text)
            out.flush()


_SCREEN = _Screen()


def line(text: str) -> None:
    """Print one line."""
    _SCREEN.write(f"{text}\n")


def lines(texts: Iterable[str]) -> None:
    """Print lines that belong together: nothing of another thread comes between them."""
    _SCREEN.write("".join(f"{text}\n" for text in texts))


def error(text: str, *, who: str = "") -> None:
    """Print the one line of an error."""
    line(f"{who}{paint('error', '31')}: {text}")


def result(text: str, out: TextIO) -> None:
    """Write whole lines to another stream, as standard output, which may be the same terminal.

    Raises OSError when it cannot be written.
    """
    _SCREEN.write(text, out)


@contextmanager
def task(name: str) -> Iterator[None]:
    """Lines about what runs in this thread begin with the task's name."""
    before = _TASK.set(name)
    try:
        yield
    finally:
        _TASK.reset(before)


@contextmanager
def working(title: str, *, detail: Callable[[], str] | None = None) -> Iterator[None]:
    """Show that `title` is being done: a live line on a terminal, a plain one every now and then elsewhere.

    `detail` gives the current state in a few words; it is called from another thread.
    """
    name = _TASK.get()
    work = _Work(title=f"{name}: {title}" if name else title, detail=detail)
    _SCREEN.start(work)
    how = "failed"
    try:
        yield
        how = "done"
    except (KeyboardInterrupt, children.Interrupted):
        how = "interrupted"
        raise
    finally:
        _SCREEN.end(work, "interrupted" if how == "failed" and children.stopping() else how)


def interrupted() -> None:
    """Say of all that runs that it was interrupted, for threads that do not come to it any more."""
    _SCREEN.end_all("interrupted")
