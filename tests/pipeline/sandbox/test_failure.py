# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a step's log does to whoever looks on: nothing."""

import io
import os
import sys
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError
from tools.pipeline.sandbox import failure
from tools.pipeline.sandbox.sandbox import Outcome, _LineCounter


def test_the_tail_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", shown)
    log = tmp_path / "log"
    log.write_bytes(b"plain: a\tb \xc3\xa4\n\x1b]0;title\x07\x1b[2J\x9b6n\rover\n" + b"\0" * 100_000)
    with pytest.raises(BuildError):
        failure.check(Outcome(status=1, log=log, replay=tmp_path / "r"), title="t")
    text = shown.getvalue()
    assert "   | " in text
    assert all(c.isprintable() or c == "\n" for c in text)
    log.write_bytes(log.read_bytes().rstrip(b"\0"))
    with pytest.raises(BuildError):
        failure.check(Outcome(status=1, log=log, replay=tmp_path / "r"), title="t")
    assert "   | plain: a        b ä\n" in shown.getvalue().removeprefix(text)


def test_a_log_that_a_step_made_endless(tmp_path: Path) -> None:
    """It has the log as its output, and can make it as long as a file can be."""
    log = tmp_path / "log"
    log.write_bytes(b"1\n2\n")
    counter = _LineCounter(log)
    assert counter.describe() == "2 log lines"
    os.truncate(log, 1 << 43)
    assert counter.describe() == "2 log lines"
