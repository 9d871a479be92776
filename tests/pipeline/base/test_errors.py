# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An error is one line: where, what, what to do next; and it decides the exit status."""

import pytest

from tools.pipeline.base.errors import BuildError, SevArtifactsError, UserError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("what"), "what"),
        (UserError("what", where="f: k"), "f: k: what"),
        (UserError("what", hint="do this"), "what; do this"),
        (BuildError("what", where="f", hint="do this"), "f: what; do this"),
    ],
)
def test_line(error: SevArtifactsError, line: str) -> None:
    assert str(error) == line


def test_exit_statuses() -> None:
    assert (UserError("x").exit_status, BuildError("x").exit_status) == (2, 1)
    assert not isinstance(BuildError("x"), UserError)


def test_quoted_input_cannot_break_the_line_or_reach_the_terminal() -> None:
    line = str(UserError("bad 'a\nb\x1b[2Jc\u2028d\x7f\u202e'", where="f\r", hint="h\t"))
    assert line == "f\\r: bad 'a\\nb\\x1b[2Jc\\u2028d\\x7f\\u202e'; h\\t"
    assert len(line.splitlines()) == 1


def test_details_are_indented_lines_below() -> None:
    error = UserError("two things", where="f", hint="look", details=["k: first", "l: sec\nond"])
    assert str(error).splitlines() == ["f: two things; look", "   k: first", "   l: sec\\nond"]


def test_prose_stays_as_it_is() -> None:
    assert str(UserError("größer als 1…2 — “x”")) == "größer als 1…2 — “x”"
