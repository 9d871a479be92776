# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Workload documents: what is accepted, what is refused, their one form, and what they leave to the host."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from tests.sev.workload.corpus import documents
from tools.sev.errors import FormatError
from tools.sev.workload import canonical, reader
from tools.sev.workload.document import REPORTS, Capabilities, Document, Doors, Process, Tar, Variable, Verity
from tools.sev.workload.openings import openings

ROOT = Tar(length=512, sha256="ab" * 32)
SMALL = Document(root=ROOT, process=Process(argv=("/app",)))


def refusal(data: bytes) -> str | None:
    try:
        reader.parse(data, where="doc")
    except FormatError as error:
        return str(error)
    return None


def test_every_document_of_the_corpus(repository: Path) -> None:
    wrong = []
    accepted = refused = 0
    for expected, change, data in documents(repository):
        said = refusal(data)
        accepted += said is None
        refused += said is not None
        if (said is None) != expected:
            wrong.append((change, said))
        if said is not None:
            assert "\n" not in said
            assert said.startswith("doc")
    assert not wrong
    assert accepted > 20
    assert refused > 80


def test_what_is_accepted_is_written_again_byte_for_byte(repository: Path) -> None:
    for expected, change, data in documents(repository):
        if expected:
            document = reader.parse(data, where="doc")
            assert document.data == data, change
            assert document.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xef\xbb\xbf{}", b"[]", b"1", b'"x"', b"{}", b"{}\n", b"[" * 100_000])
def test_what_is_no_document_is_one_line(data: bytes) -> None:
    said = refusal(data)
    assert said is not None
    assert len(said) < 300


def test_a_document_has_one_mebibyte(repository: Path) -> None:
    def with_argument(size: int) -> bytes:
        process = dataclasses.replace(SMALL.process, argv=("/app", "x" * size))
        return dataclasses.replace(SMALL, process=process).data

    room = canonical.DOCUMENT_MAX - len(with_argument(0))
    assert refusal(with_argument(room)) is None
    assert "larger" in str(refusal(with_argument(room + 1)))


VALUES = [
    {"b": 1, "a": [True, None, '\x00\x1f\x7f\x80ä😀\\"/']},
    [],
    {},
    "",
    {"ä": {"z": 0, "Z": 9007199254740991}},
]


@pytest.mark.parametrize("value", VALUES)
def test_the_one_form(value: object) -> None:
    """Python writes RFC 8785 with these settings: integers, and keys that are sorted by code point."""
    data = canonical.encode(value)
    assert canonical.decode(data, where="doc") == value
    other = json.dumps(value, indent=1).encode()
    if other != data:
        with pytest.raises(FormatError, match="canonical form"):
            canonical.decode(other, where="doc")
        assert canonical.encode(canonical.decode(other, where="doc", canonical=False)) == data


def test_known_bytes() -> None:
    """A vector for whoever writes a reader of their own."""
    assert canonical.encode({"b": "\n\x1f\x7f€", "a": 0}) == b'{"a":0,"b":"\\n\\u001f\x7f\xe2\x82\xac"}'


def test_a_plain_document_opens_little() -> None:
    assert [line.partition(":")[0] for line in openings(SMALL)] == ["output", "refusals"]
    shut = dataclasses.replace(SMALL, process=Process(argv=("/app",), host=Doors(output=False)), end_on_refusal=True)
    assert openings(shut) == []


def test_every_opening_is_named(repository: Path) -> None:
    whole = reader.parse(next(iter(documents(repository)))[2], where="doc")
    names = [line.partition(":")[0] for line in openings(whole)]
    assert names == [
        "stdin", "environment", "signals", "output", "exec health", "files", "folders", "shared", "network",
        "host name", "attest", "refusals",
    ]  # fmt: skip
    raw = openings(dataclasses.replace(whole, host_reports=False, reports="raw"))
    assert [line.partition(":")[0] for line in raw] == [*names[:-2], "reports", "refusals"]
    bare = Process(
        argv=("/app",),
        capabilities=Capabilities.of(("chown", "sys_admin"), uid=0),
        seccomp=False,
        no_new_privileges=False,
    )
    lines = openings(dataclasses.replace(SMALL, process=bare))
    names = [line.partition(":")[0] for line in lines]
    assert names == ["output", "capabilities", "container", "seccomp", "privileges", "refusals"]
    assert "sys_admin" in lines[1]
    assert "chown" not in lines[1]


@pytest.mark.parametrize(
    ("allow", "good", "bad"),
    [
        ("digits", "0123", "12a"),
        ("hex", "09af", "0F"),
        ("word", "aZ0._-", "a b"),
        ("path", "/a/b..c", "/a/../b"),
        ("path", "/", "a"),
        ("line", "any täxt; $(x)", "two\nlines"),
        ("line", "", "\x85"),
    ],
)
def test_values_of_variables_follow_their_grammar(allow: str, good: str, bad: str) -> None:
    variable = Variable(name="V", allow=allow, length=20)
    reader.check_value(variable, good)
    with pytest.raises(ValueError, match="V may only be"):
        reader.check_value(variable, bad)
    with pytest.raises(ValueError, match="has 21 bytes"):
        reader.check_value(variable, "/" + "a" * 20)


def test_who_may_ask_for_reports() -> None:
    """All pairs of values but the one in which the workload could make reports that look like the host's."""
    for reports in REPORTS:
        for host in (False, True):
            document = dataclasses.replace(SMALL, reports=reports, host_reports=host)
            if host and reports == "raw":
                assert "excludes" in str(refusal(document.data))
            else:
                assert reader.parse(document.data, where="doc") == document


def test_verity_roots_are_documents_too() -> None:
    document = dataclasses.replace(SMALL, root=Verity(root_hash="cd" * 32, salt="", layers=(9, 1)))
    assert reader.parse(document.data, where="doc") == document
    assert document.sha256 != SMALL.sha256


def test_a_misspelt_key_is_named_where_it_is_missed(repository: Path) -> None:
    whole = next(data for _, name, data in documents(repository) if not name)
    misspelt = whole.replace(b'"hostname":', b'"hostnmae":')
    with pytest.raises(FormatError, match=r"hostname: is missing; unknown key hostnmae, did you mean hostname[?]$"):
        reader.from_value(json.loads(misspelt), where="d")
