# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the demonstration shows, one step after the other; each line on stdout."""

import os
import select
import subprocess
import textwrap
import time

from tools.launcher.base.errors import LauncherError
from tools.launcher.base.ui import NAME, write_stdout
from tools.launcher.cli.demo.starts import Started, word
from tools.launcher.memory import check as checks
from tools.launcher.memory import dump, pool, process
from tools.launcher.memory.check import Checked, Shown
from tools.launcher.memory.verdict import Word
from tools.sev.errors import printable

TIMEOUT = 300.0
"""Seconds for the guest to say its next line."""

_ROWS = 6
_WIDTH = 118
_UNMASK = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")


class _Guest:
    """The conversation with the guest's script."""

    def __init__(self, started: Started, timeout: float) -> None:
        self._process = started.process
        self._timeout = timeout
        self._rest = b""

    def until(self, mark: str) -> list[str]:
        """The lines before the one that begins with the mark."""
        lines: list[str] = []
        while not (line := self._line()).startswith(mark):
            lines.append(line)
        return lines

    def say(self, text: str) -> None:
        """One line to its standard input."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{text}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def wait(self) -> None:
        """Until it has ended; LauncherError when it failed."""
        try:
            status = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise LauncherError(f"did not end within {self._timeout:.0f} s", where="the guest") from None
        if status != 0:
            raise LauncherError(f"ended with status {status}", where="the guest")

    def _line(self) -> str:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + self._timeout
        while b"\n" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise LauncherError(f"said nothing for {self._timeout:.0f} s", where="the guest")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise self._ended()
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return printable(line.decode("utf-8", "replace").rstrip("\r"))

    def _ended(self) -> LauncherError:
        status = self._process.wait()
        return LauncherError(f"ended too soon, with status {status}", where="the guest")


def show(started: Started, *, timeout: float) -> Checked:
    """All of it; what the check of the guest's memory found."""
    _say("1. A shell in a guest", *_folded(f"$ {started.command}"))
    if started.why_not:
        _say("   NOT ENCRYPTED, because:", *(f"  {why}" for why in started.why_not))
    guest = _Guest(started, timeout)
    guest.until("@id")
    _say("\n2. Who it runs as", "# id", *guest.until("@dmesg"))
    kernel = guest.until("@ready")
    _say(
        "\n3. What the kernel says",
        "# dmesg | grep -i -e sev -e encrypt -e 'io tlb' -e swiotlb",
        *(kernel or ["(nothing)"]),
    )
    # A text that crosses a channel now: what a device gave the guest a moment ago.
    control = word()
    guest.say(control)
    guest.until("@held")
    pid = process.qemu_of(started.pid())
    with process.opened(pid) as there:
        encrypted = any(b"sev-guest" in text or b"sev-snp-guest" in text for text in there.argv)
    marker = started.masked.translate(_UNMASK).encode()
    checked = checks.check(pid, marker=marker, controls=[control.encode()])
    _say("\n4. Bounce buffers", pool.look(checked, kernel="\n".join(kernel), control=control.encode()).said)
    pages = list(checked.pages)
    _say("\n5. QEMU's heap, read from the host", f"$ dd if=/proc/{pid}/mem … | xxd", *_rows(pages.pop(0)))
    _say("\n6. The guest's memory, read from the host", f"$ {NAME} memcheck --pid {pid} --marker …")
    for page in pages:
        _say(f"   {page.what}:", *_rows(page))
    _say(f"   {checked.verdict.word}: {checked.verdict.why}")
    guest.say("end")
    guest.until("@end")
    guest.wait()
    _say("\n" + _conclusion(checked, encrypted=encrypted))
    return checked


def _folded(text: str) -> list[str]:
    """In lines that a shell takes as one."""
    return textwrap.wrap(text, _WIDTH - 6, break_on_hyphens=False, break_long_words=False, subsequent_indent="    ")


def _rows(page: Shown) -> list[str]:
    return list(dump.rows(page.data, address=page.address, around=page.at, count=_ROWS))


def _conclusion(checked: Checked, *, encrypted: bool) -> str:
    """`encrypted`: QEMU was told to encrypt it."""
    if checked.verdict.word in (Word.CIPHERTEXT, Word.NOT_ACCESSIBLE):
        return "This host reads QEMU's memory, and what the guest shares. It does not read the guest's own memory."
    if checked.verdict.word is Word.INCONCLUSIVE:
        return "Nothing was shown."
    if encrypted:
        return "THE GUEST IS NOT ENCRYPTED, though QEMU was told to: its memory can be read from this host."
    return "This machine encrypted nothing: its root reads all of the guest. On one with SEV the last step differs."


def _say(*lines: str) -> None:
    shown = [lines[0], *(f"   {line}" for line in lines[1:])]
    write_stdout("".join(f"{line if len(line) <= _WIDTH else line[: _WIDTH - 1] + '…'}\n" for line in shown))
