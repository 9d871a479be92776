# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The terminal here: raw while the guest has it, and as before when that is over, however it ends."""

import fcntl
import os
import struct
import termios
from collections.abc import Iterator

import pytest

from tools.launcher.channel import terminal
from tools.launcher.channel.terminal import Terminal

# A workload that is root wants every key: no lines, no echo, no signals, nothing translated.
_COOKED = termios.ICANON | termios.ECHO | termios.ISIG


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: the user's and the launcher's."""
    user, inner = os.openpty()
    yield user, inner
    for descriptor in (user, inner):
        os.close(descriptor)


def modes(descriptor: int) -> int:
    local: int = termios.tcgetattr(descriptor)[3]
    return local & _COOKED


def test_it_is_raw_while_the_guest_has_it(ends: tuple[int, int]) -> None:
    _, inner = ends
    before = termios.tcgetattr(inner)
    with Terminal(inner, keys=True).raw():
        assert modes(inner) == 0
    assert termios.tcgetattr(inner) == before
    with pytest.raises(RuntimeError), Terminal(inner, keys=True).raw():
        raise RuntimeError
    assert termios.tcgetattr(inner) == before


def test_it_is_left_alone_when_nobody_types(ends: tuple[int, int]) -> None:
    _, inner = ends
    with Terminal(inner, keys=False).raw():
        assert modes(inner) == _COOKED


def test_a_terminal_that_goes_away_is_no_error() -> None:
    user, inner = os.openpty()
    shown = Terminal(inner, keys=True)
    with shown.raw():
        os.close(user)
        os.close(inner)
    assert shown.size == (0, 0)


def test_sizes_are_those_that_the_protocol_takes(ends: tuple[int, int]) -> None:
    _, inner = ends
    for said, expected in (((24, 80), (24, 80)), ((9000, 5), (4096, 5)), ((0, 0), (0, 0))):
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", *said, 0, 0))
        assert Terminal(inner, keys=False).size == expected


def test_which_terminal_it_is(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    there = {0, 1}
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor in there)
    assert vars(terminal.here(keys=True) or 0) == vars(Terminal(0, keys=True))
    assert vars(terminal.here(keys=False) or 0) == vars(Terminal(1, keys=False))
    there.remove(0)
    assert vars(terminal.here(keys=True) or 0) == vars(Terminal(1, keys=False))
    there.remove(1)
    assert terminal.here(keys=True) is None
