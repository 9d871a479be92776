# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""docs/schemas/workload.schema.json and docs/workload.md beside the reader."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from tests.house.test_schemas import Keys, check, keys_of_schema, schema
from tests.sev.workload.corpus import documents
from tools.sev.errors import FormatError
from tools.sev.workload import reader
from tools.sev.workload.fields import Fields

VERITY = {"form": "erofs-verity", "root_hash": "0f" * 32, "salt": "", "layers": [3, 1]}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """The keys that the reader asks for while the test runs, without indices."""
    found: Keys = set()
    take = Fields._take

    def record(self: Fields, key: str) -> Any:
        if key != "item":
            path = re.sub(r"\[\d+\]", "", self._place(key)).removeprefix("doc: ")
            found.add(tuple(path.split(".")))
        return take(self, key)

    monkeypatch.setattr(Fields, "_take", record)
    return found


@pytest.fixture
def whole(repository: Path) -> dict[str, Any]:
    """A document with every key in it but those of a verity root."""
    value: dict[str, Any] = json.loads(next(iter(documents(repository)))[2])
    argument = {"index": 0, "mask": "0" * 16, "operator": "eq", "value": "f" * 16}
    rule = {"action": "allow", "arguments": [argument], "calls": [0]}
    value["process"]["seccomp"] = {"default": 1, "rules": [rule]}
    value["exec"][0]["process"] = copy.deepcopy(value["process"])
    return value


def test_what_the_reader_accepts_validates(repository: Path, whole: dict[str, Any]) -> None:
    for expected, _, data in documents(repository):
        if expected:
            check(repository, "workload", json.loads(data))
    check(repository, "workload", {**whole, "root": VERITY})


def test_the_reader_asks_for_exactly_the_schemas_keys(repository: Path, whole: dict[str, Any], asked: Keys) -> None:
    reader.from_value(whole, where="doc")
    reader.from_value({**whole, "root": VERITY}, where="doc")
    assert asked == keys_of_schema(schema(repository, "workload"))


def tables(value: Any) -> list[dict[str, Any]]:
    """Every object in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ([value] if isinstance(value, dict) else []) + [table for one in inner for table in tables(one)]


@pytest.mark.parametrize("what", ["missing", "unknown"])
def test_both_refuse_a_key_too_few_and_one_too_many(repository: Path, whole: dict[str, Any], what: str) -> None:
    count = 0
    for number, table in enumerate(tables(whole)):
        for key in table:
            changed = copy.deepcopy(whole)
            there = tables(changed)[number]
            if what == "missing":
                del there[key]
            else:
                there[f"{key}x"] = there[key]
            count += 1
            with pytest.raises(ValidationError):
                check(repository, "workload", changed)
            with pytest.raises(FormatError):
                reader.from_value(changed, where="doc")
    assert count > 50


def test_the_example_of_the_page_is_a_document(repository: Path) -> None:
    text = (repository / "docs/workload.md").read_text()
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found
    value = json.loads(found[1])
    reader.from_value(value, where="doc")
    check(repository, "workload", value)
