# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Records are believed only where they were put, and only when our key sealed them; the key is ours alone."""

import json
import os
from pathlib import Path

import pytest

from tools.pipeline.base import files
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store import seal
from tools.pipeline.engine.store.seal import Seal

SEAL = Seal(key=b"k" * 32)
RECORD = {"digest": "d", "count": 3}


def test_a_record_is_of_one_thing(tmp_path: Path) -> None:
    path = tmp_path / "record"
    SEAL.write(path, RECORD, kind="tree", key="build-2")
    assert SEAL.read(path, kind="tree", key="build-2") == RECORD
    assert SEAL.read(path, kind="step", key="build-2") is None
    assert SEAL.read(path, kind="tree", key="build-1") is None
    # Nor does it help to say so in the file.
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "key": "build-1"}))
    assert SEAL.read(path, kind="tree", key="build-1") is None


def test_another_key_or_record(tmp_path: Path) -> None:
    path = tmp_path / "record"
    Seal(key=b"K" * 32).write(path, RECORD, kind="tree", key="x")
    assert SEAL.read(path, kind="tree", key="x") is None
    assert Seal(key=b"K" * 32).read(path, kind="tree", key="x") == RECORD
    SEAL.write(path, RECORD, kind="tree", key="x")
    path.write_text(path.read_text().replace('"count": 3', '"count": 4'))
    assert SEAL.read(path, kind="tree", key="x") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"record": 1, "seal": 2}', "[" * 100_000, '{"record": {}, "seal": "ä"}']
)
def test_what_is_no_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record"
    path.write_text(text)
    assert SEAL.read(path, kind="tree", key="x") is None
    assert SEAL.read(tmp_path / "none", kind="tree", key="x") is None


def test_the_key_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        made = seal.load(tmp_path / "state/ours")
    finally:
        os.umask(previous)
    path = tmp_path / "state/ours/cache-key"
    assert (oct(path.stat().st_mode), len(made.key)) == ("0o100600", 32)
    assert seal.load(tmp_path / "state/ours") == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_key_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    seal.load(tmp_path)
    path = tmp_path / "cache-key"
    path.chmod(mode)
    with pytest.raises(UserError, match=rf"{path}: others can read or write it \(mode {mode:o}\); chmod 600 {path}"):
        seal.load(tmp_path)


def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    seal.load(tmp_path)
    path = tmp_path / "cache-key"
    status = list(path.stat())
    files.check_private(os.stat_result(status), path)
    status[4] += 1  # st_uid
    with pytest.raises(UserError, match=rf"belongs to uid {status[4]}, not to uid {status[4] - 1}"):
        files.check_private(os.stat_result(status), path)


def test_a_key_of_another_size_is_refused(tmp_path: Path) -> None:
    seal.load(tmp_path)
    (tmp_path / "cache-key").write_bytes(b"k" * 31)
    with pytest.raises(UserError, match="has 31 bytes, not 32; remove it"):
        seal.load(tmp_path)
