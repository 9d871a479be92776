# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a person sees: plain lines in a log, a live line and colours on a terminal only."""

import io
import sys

import pytest

from tools.pipeline.base import ui


class Terminal(io.StringIO):
    """A stream that says that a person watches."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (4.21, "4.2 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (187.2, "3 min 07 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert ui.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (102400, "100 KiB"),
        (1048576, "1.0 MiB"),
        (4_100_000, "3.9 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert ui.size(count) == text


def use(monkeypatch: pytest.MonkeyPatch, out: io.StringIO) -> None:
    monkeypatch.setattr(sys, "__stderr__", out)


def test_plain_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    use(monkeypatch, out)
    with ui.working("compiling"):
        pass
    lines = out.getvalue().splitlines()
    assert lines[0] == "   compiling …"
    assert lines[1].startswith("   compiling  done, ")
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()


def test_failure_is_said_and_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    use(monkeypatch, out)
    with pytest.raises(ValueError, match="inner"), ui.working("compiling"):
        raise ValueError("inner")
    assert "compiling  failed" in out.getvalue()


def test_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    use(monkeypatch, out)
    monkeypatch.setattr(ui, "_PLAIN_INTERVAL", 0.001)
    seen: list[int] = []

    def detail() -> str:
        seen.append(1)
        return f"{len(seen)} log lines"

    with ui.working("compiling", detail=detail):
        while len(seen) < 3:
            pass
    assert "2 log lines\n" in out.getvalue()


def test_live_line_and_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    use(monkeypatch, out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(ui, "_TERMINAL_INTERVAL", 0.001)
    with ui.working("compiling"):
        while "compiling" not in out.getvalue():
            pass
    # The live line goes before the last one comes.
    assert "\r\x1b[J   compiling  \x1b[32mdone" in out.getvalue()
    assert "\x1b[32mdone\x1b[0m" in out.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert ui.paint("x", "31", Terminal()) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv(name, value)
    assert ui.paint("x", "31", Terminal()) == "x"
    assert ui.paint("x", "31", io.StringIO()) == "x"


def test_stream_is_the_real_one_even_while_doit_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = io.StringIO()
    monkeypatch.setattr(sys, "stderr", captured)
    real = io.StringIO()
    use(monkeypatch, real)
    ui.line("seen")
    assert (captured.getvalue(), real.getvalue()) == ("", "seen\n")
