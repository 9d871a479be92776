# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Keys: golden ones, which change only together with ENGINE_VERSION, and what counts in them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tools.pipeline.engine import key
from tools.pipeline.engine.step import Literal, Step
from tools.pipeline.engine.store import merkle

STEP = Step(
    name="name",
    title="title",
    argv=("sh", "-c", "true"),
    tools="build",
    inputs={"/inputs/a": Literal(data=b"a"), "/inputs/sub/b": Literal(data=b"b"), "/src/c": Literal(data=b"c")},
    outputs=("z", "y"),
    environment={"NAME": "value"},
)
TREE = "1" * 64


def inputs(step: Step = STEP, *, executable: str = "") -> Mapping[str, merkle.File]:
    return {
        path: merkle.File(digest=merkle.Digest.of(reference.data), executable=path == executable)
        for path, reference in step.inputs.items()
        if isinstance(reference, Literal)
    }


def key_of(step: Step = STEP, *, tree: str = TREE, **options: str) -> str:
    return key.of(key.describe(step, tools=tree, inputs=inputs(step, **options)))


def test_golden() -> None:
    """Whoever changes what a description says must raise ENGINE_VERSION, and write the new key here."""
    description: dict[str, Any] = key.describe(STEP, tools=TREE, inputs=inputs())
    assert description == {
        "engine": 1,
        "command": {
            "argv": ["sh", "-c", "true"],
            "environment": {
                "HOME": "/build",
                "LC_ALL": "C.UTF-8",
                "NAME": "value",
                "PATH": "/usr/bin:/usr/sbin",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONHASHSEED": "0",
                "SOURCE_DATE_EPOCH": "1735689600",
                "TZ": "UTC",
            },
            "working_directory": "/build",
            "uid": 1000,
            "gid": 1000,
            "umask": "022",
        },
        "mounts": {
            "/": TREE,
            "/inputs": "9f89e01d2190d2776051a297c4461b29bf3f4c02a5c6c371c38261fa171b5555",
            "/src": "2d5c8ba78600fcadae65bab790bdf1f6f88278ec4abe1dc3aa7c26e60137dfc8",
        },
        "outputs": ["y", "z"],
        "parallel": False,
    }
    assert (key.ENGINE_VERSION, key.of(description)) == (
        1,
        "8e5dc8dcff96229598bd56c5bd576561ae4de97560713a91eb2aa10268198d4a",
    )


def test_one_text_for_one_meaning() -> None:
    description = key.describe(STEP, tools=TREE, inputs=inputs())
    shuffled = json.loads(json.dumps(description, sort_keys=True, indent=4))
    assert key.of(shuffled) == key.of(description)


@pytest.mark.parametrize("changes", [{"name": "other"}, {"title": "other"}, {"mistakes": True}, {"checks": (print,)}])
def test_what_does_not_count(changes: dict[str, Any]) -> None:
    assert key_of(replace(STEP, **changes)) == key_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("sh", "-c", "false")},
        {"argv": ("sh", "-c true")},
        {"environment": {"NAME": "other"}},
        {"environment": {}},
        {"outputs": ("z",)},
        {"parallel": True},
        {"inputs": {**STEP.inputs, "/inputs/a": Literal(data=b"A")}},
        {"inputs": {**STEP.inputs, "/inputs/d": Literal(data=b"a")}},
        {"inputs": {"/inputs/a": Literal(data=b"a")}},
    ],
)
def test_what_counts(changes: dict[str, Any]) -> None:
    assert key_of(replace(STEP, **changes)) != key_of()


def test_the_tool_tree_and_the_executable_bit_count() -> None:
    assert len({key_of(), key_of(tree="2" * 64), key_of(executable="/inputs/a")}) == 3
