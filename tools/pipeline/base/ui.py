# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a person sees while something runs: a line when it starts, signs of life, a line when it ends."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tools.pipeline.base import ambient

_PLAIN_INTERVAL = 20.0  # seconds between plain lines: enough to show life, few enough for a CI log
_TERMINAL_INTERVAL = 0.5


def stream() -> TextIO:
    """Progress goes to the real standard error: doit replaces sys.stderr while an action runs."""
    return sys.__stderr__ if sys.__stderr__ is not None else sys.stderr


def paint(text: str, code: str, out: TextIO | None = None) -> str:
    """Wrap the text in an ANSI colour where colour is wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if ambient.colour_wanted(out or stream()) else text


def line(text: str) -> None:
    """Print one line."""
    out = stream()
    out.write(text + "\n")
    out.flush()


def answer(text: str) -> None:
    """Print what was asked for, on the real standard output."""
    out = sys.__stdout__ if sys.__stdout__ is not None else sys.stdout
    out.write(text)
    out.flush()


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


@contextmanager
def working(title: str, *, detail: Callable[[], str] | None = None) -> Iterator[None]:
    """Show that `title` is being done: a live line on a terminal, a plain one every now and then elsewhere.

    `detail` gives the current state in a few words; it is called from another thread.
    """
    out = stream()
    live = ambient.is_terminal(out)
    started = ambient.monotonic()
    finished = threading.Event()

    def beat() -> None:
        while not finished.wait(_TERMINAL_INTERVAL if live else _PLAIN_INTERVAL):
            state = f"{title}  {duration(ambient.monotonic() - started)}"
            extra = detail() if detail else ""
            text = f"   {state}{'  ' + extra if extra else ''}"
            out.write(f"\r\x1b[K{text[:100]}" if live else text + "\n")
            out.flush()

    if not live:
        line(f"   {title} …")
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    good = False
    try:
        yield
        good = True
    finally:
        finished.set()
        thread.join()
        took = duration(ambient.monotonic() - started)
        mark = paint("done", "32") if good else paint("failed", "31")
        out.write(("\r\x1b[K" if live else "") + f"   {title}  {mark}, {took}\n")
        out.flush()
