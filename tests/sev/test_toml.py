# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Strict TOML: what is not asked for, not of the type, or not in range is refused with file and key."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import pytest

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import UserError
from tools.sev.errors import FormatError
from tools.sev.toml import Table


class Colour(StrEnum):
    """Something to choose from."""

    RED = "red"
    GREEN = "green"


GOOD = b"""
text = "abc"
number = 7
flag = true
colour = "green"
list = ["a", "b"]
digest = "%s"
[sub]
x = 1
[[item]]
y = 1
[[item]]
y = 2
""" % (b"a1" * 32)


def table(raw: bytes) -> Table:
    return Table.parse(raw, file="f.toml")


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(FormatError) as info:
        work()
    assert "\n" not in str(info.value)
    return str(info.value)


def test_reads_every_kind() -> None:
    top = table(GOOD)
    assert top.string("text", pattern="[a-c]+", says="abc") == "abc"
    assert top.integer("number", low=7, high=7) == 7
    assert top.boolean("flag") is True
    assert top.choice("colour", Colour) is Colour.GREEN
    assert top.strings("list") == ("a", "b")
    assert top.sha256("digest") == "a1" * 32
    sub = top.table("sub")
    assert sub.integer("x", low=0, high=9) == 1
    sub.close()
    items = top.tables("item")
    assert [item.integer("y", low=0, high=9) for item in items] == [1, 2]
    assert items[1].where("y") == "f.toml: item[1].y"
    top.close()


@pytest.mark.parametrize(
    ("raw", "read", "says"),
    [
        (b"", lambda t: t.string("a"), "f.toml: a: missing; add it (a string)"),
        (b"a = 1", lambda t: t.string("a"), "f.toml: a: must be a string, not an integer"),
        (b'a = ""', lambda t: t.string("a"), "f.toml: a: must not be empty"),
        (b'a = "x\\u0000y"', lambda t: t.string("a"), "NUL"),
        # fullmatch, not match: nothing may follow the good part.
        (b'a = "ab\\n"', lambda t: t.string("a", pattern="[ab]+", says="of a and b"), "is not of a and b"),
        (b"a = true", lambda t: t.integer("a", low=0, high=1), "must be an integer, not a boolean"),
        (b"a = 1.0", lambda t: t.integer("a", low=0, high=1), "must be an integer, not a float"),
        (b'a = "1"', lambda t: t.integer("a", low=0, high=1), "must be an integer, not a string"),
        (b"a = 2", lambda t: t.integer("a", low=0, high=1), "f.toml: a: 2 is not in 0…1"),
        (b"a = -1", lambda t: t.integer("a", low=0, high=1), "-1 is not in 0…1"),
        (b"a = 1", lambda t: t.boolean("a"), "must be true or false, not an integer"),
        (b'a = "blue"', lambda t: t.choice("a", Colour), "'blue' is not one of: red, green"),
        (b'a = ["red"]', lambda t: t.choice("a", Colour), "must be a string, not a list"),
        (b'a = "ab"', lambda t: t.sha256("a"), "is not a SHA-256"),
        (b'a = "%s"' % (b"A1" * 32), lambda t: t.sha256("a"), "is not a SHA-256"),
        (b'a = "x"', lambda t: t.strings("a"), "must be a list of strings, not a string"),
        (b"a = []", lambda t: t.strings("a"), "must not be empty"),
        (
            b'a = ["x", 1]',
            lambda t: t.strings("a"),
            "f.toml: a[1]: must be a non-empty string, not an integer",
        ),
        (b'a = ["x", ""]', lambda t: t.strings("a"), "f.toml: a[1]: must be a non-empty string"),
        (b"a = 1", lambda t: t.table("a"), "must be a table, not an integer"),
        (b"a = {}", lambda t: t.tables("a"), "must be an array of tables, not a table"),
        (b"a = [{}, 1]", lambda t: t.tables("a"), "f.toml: a[1]: must be a table, not an integer"),
        (b"a = []", lambda t: t.tables("a"), "must not be empty"),
        (b"[s]\nb = 1", lambda t: t.table("s").string("b"), "f.toml: s.b: must be a string"),
        (b"a = 1979-05-27", lambda t: t.string("a"), "must be a string, not a date"),
    ],
)
def test_refuses(raw: bytes, read: Callable[[Table], object], says: str) -> None:
    assert says in refused(lambda: read(table(raw)))


def test_empty_lists_only_where_allowed() -> None:
    assert table(b"a = []").strings("a", allow_empty=True) == ()
    assert table(b"a = []").tables("a", allow_empty=True) == []


def test_close_refuses_what_nobody_asked_for() -> None:
    top = table(b"known = 1\nfargments = 2\n")
    top.integer("known", low=0, high=1)
    assert refused(top.close) == "f.toml: fargments: unknown key; known here: known"
    top = table(b"known = 1\nfargments = 2\n")
    assert top.has("known")
    assert not top.has("fragments")
    top.integer("known", low=0, high=1)
    assert refused(top.close) == "f.toml: fargments: unknown key; known here: fragments, known; did you mean fragments?"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"a = ", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"a = 1\n\n\nb = [ %\n", "line 4"),
        (b"a = '\xff'", "is not UTF-8 at byte 5"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        # Python itself refuses to convert these, with a plain ValueError.
        (b"a = 1" + b"0" * 5000, "Exceeds the limit"),
    ],
)
def test_refuses_what_is_not_toml(raw: bytes, says: str) -> None:
    line = refused(lambda: table(raw))
    assert line.startswith("f.toml: ")
    assert says in line


@pytest.mark.parametrize("sign", [b"", b"-"])
def test_an_integer_too_long_to_print_is_refused_in_a_short_line(sign: bytes) -> None:
    # TOML has no sign before 0x, so the negative one is the largest decimal that Python still converts.
    raw = b"a = -" + b"9" * 4000 if sign else b"a = 0x" + b"f" * 5000
    line = refused(lambda: table(raw).integer("a", low=0, high=1))
    assert "is not in 0…1" in line
    assert len(line) < 200


def test_a_long_wrong_value_does_not_flood_the_line() -> None:
    raw = b'a = "' + b"x" * 100_000 + b'"'
    for read in (
        lambda t: t.string("a", pattern="y", says="a y"),
        lambda t: t.choice("a", Colour),
        lambda t: t.sha256("a"),
    ):
        assert len(refused(lambda read=read: read(table(raw)))) < 300  # type: ignore[misc]  # mypy infers no lambda's default


def test_an_empty_string_only_where_allowed() -> None:
    assert table(b'a = ""').string("a", pattern="b*", allow_empty=True) == ""
    assert "NUL" in refused(lambda: table(b'a = "\\u0000"').string("a", allow_empty=True))


def test_a_side_raises_errors_of_its_own(tmp_path: Path) -> None:
    for work in (
        lambda: toml_reader.load(tmp_path / "x.toml", shown_as="recipes/x.toml"),
        lambda: toml_reader.parse(b"a = 1" + b"0" * 5000, file="x"),
        lambda: toml_reader.parse(b"[a]", file="x").table("a").string("b"),
        lambda: toml_reader.parse(b"[[a]]", file="x").tables("a")[0].string("b"),
    ):
        with pytest.raises(UserError):
            work()


def test_load_names_the_file_as_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    assert refused(lambda: Table.load(path, shown_as="recipes/x.toml")) == (
        "recipes/x.toml: no such file; is it the right path?"
    )
    path.mkdir()
    assert refused(lambda: Table.load(path)) == "x.toml: cannot be read: Is a directory"
    path.rmdir()
    path.write_bytes(b"#" * ((8 << 20) + 1))
    assert "larger than" in refused(lambda: Table.load(path))
    path.write_bytes(b"a = 1\n")
    assert Table.load(path).integer("a", low=1, high=1) == 1


def test_a_misspelt_key_that_must_be_there_is_named() -> None:
    """It is what the reader misses; beside it one that is near nothing."""
    top = table(b"fargments = 1\nother = 2")
    line = "f.toml: fragments: missing; unknown key fargments, did you mean fragments?"
    assert refused(lambda: top.integer("fragments", low=0, high=9)) == line
    assert refused(lambda: top.integer("schema", low=0, high=9)) == "f.toml: schema: missing; add it (an integer)"
    # What has its own reader is no misspelling of another key.
    top = table(b"policies = 1")
    top.integer("policies", low=0, high=9)
    assert refused(lambda: top.integer("policy", low=0, high=9)) == "f.toml: policy: missing; add it (an integer)"
