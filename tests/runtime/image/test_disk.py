# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An engine's root becomes the disk that `sev-launch bundle` makes of its layers, and the next one costs nothing."""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.launcher.layers.layer_kit import Node, folder
from tests.runtime.image.overlay_kit import Engine, Here, image
from tools.launcher.layers import image as layer_image
from tools.runtime.image.store import Disk


def moved() -> int:
    """Bytes that this process has read and written so far."""
    text = Path("/proc/self/io").read_text()
    return sum(int(match[1]) for match in re.finditer(r"^[rw]char: (\d+)", text, re.MULTILINE))


def test_it_is_the_bundles_disk(here: Here) -> None:
    with here.of("c1") as disk:
        assert disk.path.read_bytes() == here.bundle("base", "top")
        assert sum(disk.verity.layers) == disk.verity.blocks
        assert disk.path.name == f"{disk.verity.root_hash}.img"
        assert disk.path.stat().st_mode & 0o777 == 0o600
    with here.of("c2", ("base",)) as other:
        assert other.path.read_bytes() == here.bundle("base") != disk.path.read_bytes()
    assert not here.notes


def test_a_second_container_reads_and_writes_nothing_large(here: Here) -> None:
    """Beside another image, whose making is seen by the same counters. mkfs.erofs's own digest is what remains."""
    here.engine.unpack("large", folder({b"large": Node(data=os.urandom(8 << 20))}))
    allowed = here.mkfs.stat().st_size + (256 << 10)
    before = moved()
    with here.of("c1", ("large", "base")) as first:
        assert moved() - before > (8 << 20)
    before = moved()
    with here.of("c2", ("large", "base")) as second:
        assert moved() - before < allowed
    assert (first.path, first.verity) == (second.path, second.verity)
    assert len([name for name in here.kept() if name.startswith("disks/")]) == 1


def test_a_layer_is_made_once_for_all_images(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken, hashes and all, out of the disk where it lies, wherever that is in it."""
    here.engine.unpack("third", folder({b"third": Node(data=os.urandom(3 << 20))}))
    here.engine.unpack("fourth", folder({b"fourth": Node(data=b"4")}))
    here.of("c1", ("third", "top", "base")).close()
    made: list[Path] = []
    real = layer_image.make

    def make(program: Path, archive: Path, image: Path) -> None:
        made.append(image)
        real(program, archive, image)

    monkeypatch.setattr(layer_image, "make", make)
    with here.of("c2", ("fourth", "third", "base")) as disk:
        assert len(made) == 1
        assert disk.path.read_bytes() == here.bundle("base", "third", "fourth")
    # The bundle, which knows no cache, has made three.
    assert len(made) == 4


def test_names_relative_to_a_folder_that_nobody_tells(here: Here, tmp_path: Path) -> None:
    """Beside a second engine whose layers have the same names: the root's inode number tells them apart."""
    other = Engine(tmp_path / "other")
    for name in ("base", "top"):
        other.unpack(name, folder({b"not": Node(data=b"this")}))
    other.own("c1")
    with other.mounted("c1", ("top", "base")), here.of("c1", relative=True) as disk:
        assert disk.path.read_bytes() == here.bundle("base", "top")


def test_many_layers(here: Here) -> None:
    names = [f"{'layer' * 12}{number}" for number in range(60)]
    for number, name in enumerate(names):
        here.engine.unpack(name, folder({b"f%d" % number: Node()}))
    with here.of("c1", tuple(reversed(names)), relative=True) as disk:
        assert len(disk.verity.layers) == 60


def test_colons_blanks_and_commas_in_names(here: Here, tmp_path: Path) -> None:
    """As overlayfs and mountinfo escape them."""
    lower, upper = tmp_path / "a:b c\\d", tmp_path / "upper"
    shutil.copytree(here.engine.home / "base/diff", lower)
    for name in ("work", "merged", "upper"):
        (tmp_path / name).mkdir()
    text = str(lower).replace("\\", "\\\\").replace(":", "\\:")
    options = f"lowerdir={text},upperdir={upper},workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{tmp_path}/merged"], check=True)
    try:
        with here.disk(tmp_path / "merged") as disk:
            assert disk.path.read_bytes() == here.bundle("base")
    finally:
        subprocess.run(["umount", f"{tmp_path}/merged"], check=True)


def test_a_path_that_is_used_again_is_another_layer(here: Here) -> None:
    """As after `docker rmi` and an image whose layer has the same id; with another inode number, and with the same."""
    with here.of("c1") as first:
        shutil.rmtree(here.engine.home / "top/diff")
        shutil.rmtree(here.engine.home / "top")
        (here.engine.home / "l/TOP").unlink()
        here.engine.unpack("top", image(b"more")[1])
        with here.of("c2") as second:
            assert second.verity.root_hash != first.verity.root_hash
            assert second.path.read_bytes() == here.bundle("base", "top")
        # The folder stays, and what is in it is another layer's.
        diff = here.engine.home / "top/diff"
        number = diff.stat().st_ino
        shutil.rmtree(diff / "opt")
        (diff / "other").write_bytes(b"other")
        assert diff.stat().st_ino == number
        shutil.rmtree(here.place / "bundle-base-top")
        with here.of("c3") as third:
            assert third.verity.root_hash != second.verity.root_hash
            assert third.path.read_bytes() == here.bundle("base", "top")


def test_a_plain_folder_is_one_layer_until_something_in_it_changes(here: Here, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(here.engine.home / "base/diff", root)
    with here.disk(root) as first:
        assert first.path.read_bytes() == here.bundle("base")
    assert here.notes == [f"{root}: no overlayfs is mounted there: all of it becomes one layer, whoever put it in"]
    # What is deep in it changes, and no time of the top folder tells.
    (root / "bin/app").write_bytes(b"another")
    with here.disk(root) as second:
        assert first.verity.root_hash != second.verity.root_hash


def test_eight_at_once_make_one(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Disk] = []
    images: list[Path] = []
    real = layer_image.make

    def make_image(program: Path, archive: Path, image: Path) -> None:
        images.append(image)
        real(program, archive, image)

    monkeypatch.setattr(layer_image, "make", make_image)

    def make(root: Path) -> None:
        made.append(here.disk(root))

    with here.engine.several(8, ("top", "base")) as roots:
        threads = [threading.Thread(target=make, args=(root,)) for root in roots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({disk.path for disk in made}) == 1
    assert len(made) == 8
    # One of each layer.
    assert len(images) == 2
    for disk in made:
        disk.close()
    assert not list(here.cache.glob("making-*"))
