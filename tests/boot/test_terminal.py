# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A shell in the real guest, on a real terminal around the built sev-launch."""

import contextlib
from pathlib import Path

from tests.boot.conftest import Guest
from tests.launcher.terminal_kit import Desk


def test_a_shell_on_a_terminal(guest: Guest, tmp_path: Path) -> None:
    """Line editing, interrupts and sizes are the guest's; the end is the shell's, and the terminal as before."""
    argv = guest.argv(["sh", "-i"], "--tty", "--open", "stdin", "--open", "resize")
    with contextlib.closing(Desk(argv, cwd=tmp_path)) as desk:
        desk.until(b"# ")
        assert desk.raw
        desk.type(b"tty; stty size\r", b"\r\n/dev/pts/0\r\n31 97\r\n")
        desk.resize(43, 111)
        desk.type(b"while [ \"$(stty size)\" != '43 111' ]; do sleep 0.1; done; echo re''sized\r", b"resized")
        # An interrupt ends the command and neither the shell nor the launcher.
        desk.type(b"echo wai''ting; sleep 1000\r", b"waiting")
        desk.type(b"\x03", b"# ")
        desk.type(b"echo $((40 + 2))\r", b"\r\n42\r\n")
        desk.type(b"exit 9\r", b"exit")
        assert desk.end() == 9


def test_a_terminal_without_keys(guest: Guest) -> None:
    """Standard output need not be one; both streams come as one, and lines end as terminals have it."""
    done = guest.sh("tty; stty size; echo err >&2", "--tty")
    assert (done.returncode, done.stdout) == (0, b"/dev/pts/0\r\n24 80\r\nerr\r\n")
