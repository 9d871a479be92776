# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What `bundle` and `digest --image` share: the program that makes images, and saying what is going on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.launcher.base.ui import Ui
from tools.launcher.options.parser import Option

MKFS = Option("--mkfs", "FILE", text="mkfs.erofs; default: the one beside this program, checked", convert=Path)
OWN_MKFS = "./doit build makes both; --mkfs FILE takes one that you answer for"
_SILENCE = 2.0
"""Seconds after which it says what it is at."""


@contextmanager
def progress(ui: Ui) -> Iterator[Callable[[int, int], None]]:
    """Somebody to tell which layer it is; after two seconds of silence, and again, that is said."""
    at = ["reading"]
    over = threading.Event()

    def begin(number: int, count: int) -> None:
        at[0] = f"layer {number} of {count}"

    def watch() -> None:
        seconds = 0.0
        while not over.wait(_SILENCE):
            seconds += _SILENCE
            ui.note(f"{at[0]} … {seconds:.0f} s")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield begin
    finally:
        over.set()
        thread.join()
