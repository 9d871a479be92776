# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The cache: whose it is, how large it gets, what becomes of damage and of a full disk."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.launcher.layers.layer_kit import Node, folder
from tests.runtime.image.overlay_kit import Here
from tools.launcher.base.errors import UserError
from tools.runtime.image import store

SIZE = 2 << 20


@pytest.fixture
def images(here: Here) -> list[tuple[str, ...]]:
    """Four images of one layer, which share nothing."""
    for number in range(4):
        here.engine.unpack(f"image{number}", folder({b"f": Node(data=os.urandom(SIZE))}))
    return [(f"image{number}",) for number in range(4)]


def test_what_was_not_used_for_longest_goes(here: Here, images: list[tuple[str, ...]]) -> None:
    disks = []
    for number, lower in enumerate(images[:3]):
        with here.of(f"c{number}", lower) as disk:
            disks.append(disk.path)
    # Used again: now the second one is the oldest.
    here.of("again", images[0]).close()
    with here.roots(images[3]) as root, here.disk(root, limit=int(3.5 * SIZE)) as disk:
        assert disk.path.exists()
    assert [path.exists() for path in disks] == [True, False, True]
    # What was known of it is gone too, and it can be made again.
    assert len(list((here.cache / "layers").iterdir())) == len(list((here.cache / "images").iterdir())) == 3
    with here.of("c4", images[1]) as disk:
        assert disk.path == disks[1]


def test_what_a_guest_uses_stays(here: Here, images: list[tuple[str, ...]]) -> None:
    """Whatever the limit; a child that has inherited the descriptor is enough."""
    first = here.of("c0", images[0])
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(first.descriptor,))
    first.close()
    try:
        with here.roots(images[1]) as root, here.disk(root, limit=1) as second:
            assert first.path.exists()
            assert second.path.exists()
    finally:
        child.communicate()
    with here.roots(images[2]) as root, here.disk(root, limit=1) as third:
        assert not first.path.exists()
        assert not second.path.exists()
        assert third.path.exists()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_look_into_is_no_cache(here: Here, mode: int) -> None:
    here.of("c0").close()
    here.cache.chmod(mode)
    with pytest.raises(UserError, match="is not a folder that only its owner may look into"):
        here.of("c1")
    here.cache.chmod(0o700)
    here.of("c2").close()


def test_a_foreign_cache_is_refused(here: Here, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    here.cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is not a folder that only its owner may look into"):
        here.of("c0")
    here.cache.unlink()
    here.cache.mkdir(mode=0o700)
    os.chown(here.cache, 1234, 1234)
    with pytest.raises(UserError, match="is not a folder that only its owner may look into"):
        here.of("c1")


RECORDS = ["", "{", "[]", '{"root_hash": 3}', '{"root_hash": "../../x", "salt": "", "layers": [1]}']


@pytest.mark.parametrize("text", RECORDS)
def test_damage_costs_time_alone(here: Here, text: str) -> None:
    """Records that say nothing, a disk that is cut: all is made again."""
    with here.of("c0") as first:
        good = first.path.read_bytes()
    for path in (*(here.cache / "images").iterdir(), *(here.cache / "layers").iterdir()):
        path.write_text(text)
    with here.of("c1") as second:
        assert second.path.read_bytes() == good
    os.truncate(second.path, len(good) - 4096)
    with here.of("c2") as third:
        assert third.path.read_bytes() == good


def test_what_a_killed_one_left_is_removed(here: Here) -> None:
    here.of("c0").close()
    (here.cache / "making-killed").mkdir()
    (here.cache / "making-killed/disk.img").write_bytes(bytes(4096))
    here.of("c1", ("base",)).close()
    assert not list(here.cache.glob("making-*"))


@contextmanager
def small(place: Path, size: int) -> Iterator[None]:
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("room", [1.5, 2.5, 3.5])
def test_no_room(here: Here, images: list[tuple[str, ...]], room: float) -> None:
    """Whichever of archive, image and disk it ends in: one line, and nothing is left. With room it works."""
    with small(here.cache, int(room * SIZE)):
        if room < 3:
            with pytest.raises(UserError, match=r"No space left on device; .* needs room for the image three times"):
                here.of("c0", images[0])
            assert [name for name in here.kept() if name != "lock"] == []
            # Room for a small one is left.
            here.of("c1").close()
        else:
            here.of("c0", images[0]).close()


def test_a_layer_that_others_may_exchange_is_refused(here: Here) -> None:
    here.engine.home.chmod(0o777)
    with pytest.raises(UserError, match=r"others than root may change .*engine"):
        here.of("c0")
    here.engine.home.chmod(0o710)
    here.of("c1").close()


def test_a_layer_that_changes_meanwhile(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = store.copy

    def and_change(source: int, target: int, *, offset: int, count: int) -> None:
        (here.engine.home / "top/diff/new").write_bytes(b"")
        copy(source, target, offset=offset, count=count)

    monkeypatch.setattr(store, "copy", and_change)
    with pytest.raises(UserError, match="top/diff: changed while it was read"):
        here.of("c0")
    assert [name for name in here.kept() if name != "lock"] == []
