# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The cache believes no name: entries are hashed on use, and only verified bytes get a final name."""

import hashlib
import threading
from pathlib import Path

import pytest

from tools.pipeline.sources.cache import Cache
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


def fill(cache: Cache) -> Path:
    with cache.partial(PIN, wait=never) as part:
        assert part is not None
        part.append(DATA)
        assert part.right
        part.commit()
    return cache.path(PIN.sha256)


def test_layout(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    path = fill(cache)
    assert path == tmp_path / "sha256" / PIN.sha256[:2] / PIN.sha256
    assert cache.verified_path(PIN) == path
    assert cache.read_verified(PIN) == DATA
    assert list((tmp_path / "partial").iterdir()) == []


def test_absent(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path / "none")
    assert cache.verified_path(PIN) is None
    assert cache.read_verified(PIN) is None
    # Looking makes nothing.
    assert not cache.root.exists()


@pytest.mark.parametrize("change", ["bit", "short", "long", "empty"])
@pytest.mark.parametrize("reader", ["verified_path", "read_verified"])
def test_corrupted_entry_is_removed(tmp_path: Path, change: str, reader: str) -> None:
    cache = Cache(root=tmp_path)
    path = fill(cache)
    bad = {"bit": DATA[:-1] + b"\0", "short": DATA[:-1], "long": DATA + b"\0", "empty": b""}[change]
    path.chmod(0o644)
    path.write_bytes(bad)
    assert getattr(cache, reader)(PIN) is None
    assert not path.exists()
    assert fill(cache) == path


def test_partial_is_continued(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    with cache.partial(PIN, wait=never) as part:
        assert part is not None
        part.append(DATA[:1000])
    with cache.partial(PIN, wait=never) as part:
        assert part is not None
        assert part.size == 1000
        part.append(DATA[1000:])
        assert part.right
        part.commit()
    assert cache.read_verified(PIN) == DATA


def test_finished_meanwhile(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    fill(cache)
    with cache.partial(PIN, wait=never) as part:
        assert part is None
    assert list((tmp_path / "partial").iterdir()) == []


def test_wrong_bytes_cannot_be_committed(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    with cache.partial(PIN, wait=never) as part:
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
    cache = Cache(root=tmp_path)
    waited = threading.Event()
    seen: list[bool] = []

    def second() -> None:
        with cache.partial(PIN, wait=lambda _: waited.set()) as part:
            seen.append(part is None)

    with cache.partial(PIN, wait=never) as part:
        assert part is not None
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(20)
        part.append(DATA)
        part.commit()
    thread.join(20)
    assert seen == [True]


def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)

    def give_up(_: float) -> None:
        raise KeyboardInterrupt

    with cache.partial(PIN, wait=never), pytest.raises(KeyboardInterrupt), cache.partial(PIN, wait=give_up):
        pytest.fail("the lock is held")
