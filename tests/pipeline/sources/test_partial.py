# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Downloads on their way: continued, one at a time, and none but the right bytes get the final name."""

import hashlib
import threading
from pathlib import Path

import pytest

from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources import partial
from tools.pipeline.sources.pins import LocalFile, Pin

DATA = bytes(range(256)) * 10_000
PIN = Pin(
    name="x",
    version="1",
    sha256=hashlib.sha256(DATA).hexdigest(),
    size=len(DATA),
    origin=LocalFile(path="x"),
    lock="recipes/x.lock",
)


def never(_: float) -> None:
    raise AssertionError("nobody else holds the lock")


def download(cache: Cas) -> None:
    with partial.opened(cache, PIN, wait=never) as part:
        assert part is not None
        part.append(DATA)
        assert part.right
        part.commit()


def test_it_is_continued(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    with partial.opened(cache, PIN, wait=never) as part:
        assert part is not None
        part.append(DATA[:1000])
    with partial.opened(cache, PIN, wait=never) as part:
        assert part is not None
        assert part.size == 1000
        part.append(DATA[1000:])
        assert part.right
        part.commit()
    assert cache.read(PIN.sha256, PIN.size) == DATA


def test_finished_meanwhile(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    download(cache)
    with partial.opened(cache, PIN, wait=never) as part:
        assert part is None
    assert list((tmp_path / "partial").iterdir()) == []


def test_wrong_bytes_cannot_be_committed(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    with partial.opened(cache, PIN, wait=never) as part:
        assert part is not None
        part.append(b"x" * len(DATA))
        assert part.complete
        assert not part.right
        with pytest.raises(AssertionError):
            part.commit()
        with pytest.raises(AssertionError):
            part.append(b"x")
        part.restart()
        assert part.size == 0
    assert not cache.path(PIN.sha256).exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    waited = threading.Event()
    seen: list[bool] = []

    def second() -> None:
        with partial.opened(cache, PIN, wait=lambda _: waited.set()) as part:
            seen.append(part is None)

    with partial.opened(cache, PIN, wait=never) as part:
        assert part is not None
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(20)
        part.append(DATA)
        part.commit()
    thread.join(20)
    assert seen == [True]


def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)

    def give_up(_: float) -> None:
        raise KeyboardInterrupt

    with (
        partial.opened(cache, PIN, wait=never),
        pytest.raises(KeyboardInterrupt),
        partial.opened(cache, PIN, wait=give_up),
    ):
        pytest.fail("the lock is held")
