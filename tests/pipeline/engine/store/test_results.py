# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Records of results in a cache that others write to: nothing waits for them, nothing elsewhere is changed."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.engine.store.results import Result, Results
from tools.pipeline.engine.store.seal import Seal

KEY = "ab" + "0" * 62
RESULT = Result(key=KEY, outputs={}, seconds=1.0)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(root=tmp_path / "cache/results", seal=Seal(key=b"k" * 32))


def record(results: Results) -> Path:
    path = results.root / KEY[:2] / f"{KEY}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 43)


@pytest.mark.parametrize(
    "put", [os.mkfifo, huge, lambda path: path.symlink_to("/dev/zero")], ids=["fifo", "huge", "link"]
)
def test_what_is_no_record_is_replaced(results: Results, put: Callable[[Path], object]) -> None:
    put(record(results))
    found: list[Result | None] = []
    # In a thread: at worst it waits for ever.
    reader = threading.Thread(target=lambda: found.append(results.read(KEY)), daemon=True)
    reader.start()
    reader.join(20)
    assert found == [None]
    results.write(RESULT)
    assert results.read(KEY) == RESULT
    assert oct(record(results).lstat().st_mode) == "0o100644"


@pytest.mark.parametrize("below", ["", "ab"], ids=["results", "ab"])
def test_no_folder_is_a_link(results: Results, tmp_path: Path, below: str) -> None:
    results.write(RESULT)
    assert results.read(KEY) == RESULT
    elsewhere, link = tmp_path / "elsewhere", results.root / below
    link.rename(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    link.symlink_to(elsewhere)
    uses: list[Callable[[], object]] = [lambda: results.read(KEY), lambda: results.write(RESULT)]
    for use in uses:
        with pytest.raises(UserError, match="is a link or a file where a folder must be"):
            use()
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def test_a_folder_in_a_records_place(results: Results) -> None:
    record(results).mkdir()
    assert results.read(KEY) is None
    with pytest.raises(BuildError, match=rf"{KEY}\.json: cannot be written: Is a directory; set SEV_ARTIFACTS_CACHE"):
        results.write(RESULT)


def test_a_new_record_that_is_replaced_by_a_link(results: Results, tmp_path: Path) -> None:
    """Whoever puts a link in the place of a file on its way gets no other file's mode changed."""
    secret, folder = tmp_path / "secret", record(results).parent
    secret.touch(mode=0o600)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for path in folder.glob(".*"):
                path.unlink(missing_ok=True)
                path.symlink_to(secret)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(50):
            results.write(RESULT)
    except BuildError:
        pass  # he took the new file away
    finally:
        ended.set()
        thread.join()
    assert oct(secret.stat().st_mode) == "0o100600"


def test_whose_word_a_record_is(results: Results) -> None:
    """It stays in the record; one without is our own, and one that cannot be read is none."""
    theirs = replace(RESULT, origin=Origin(how=How.CACHE, place="somewhere", builder="somebody"))
    results.write(theirs)
    assert results.read(KEY) == theirs
    record = {"outputs": {}, "seconds": 1.0}
    for origin, kept in (
        ({}, False),
        (theirs.origin.document(), True),
        ({"how": "new", "place": "", "builder": ""}, False),
    ):
        sealed = {**record, "origin": origin}
        results.seal.write(results.root / KEY[:2] / f"{KEY}.json", sealed, kind="result", key=KEY)
        assert (results.read(KEY) is not None) == kept
    results.write(RESULT)
    found = results.read(KEY)
    assert found is not None
    assert found.origin.ours
