# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Malicious and damaged packages leave nothing outside, and nothing that counts inside."""

import gzip
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.pipeline.toolchain.package_kit import (
    Workshop,
    ar,
    folder,
    hard,
    link,
    member,
    package_file,
    tar,
)
from tools.pipeline.base.errors import BuildError
from tools.pipeline.toolchain import deb

# Packages that try to leave the tree, or are damaged: members, and what the error must say.
THROUGH = "needs the folder 'usr/l'"
BAD: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "absolute path": ([member("/OUTSIDE/new", b"x")], "absolute"),
    "dots": ([member("./usr/../../../../outside/new", b"x")], "'..'"),
    "dots only": ([member("..", b"x")], "'..'"),
    "write through an absolute link": (
        [link("./usr/l", "/OUTSIDE"), member("./usr/l/new", b"x")], THROUGH),
    "write through a relative link": (
        [link("./usr/l", "../../../../../outside"), member("./usr/l/new", b"x")], THROUGH),
    "folder through a link": ([link("./usr/l", "/OUTSIDE"), folder("./usr/l/new")], THROUGH),
    "folder over a link": ([link("./usr/l", "/OUTSIDE"), folder("./usr/l")], THROUGH),
    "link through a link": ([link("./usr/l", "/OUTSIDE"), link("./usr/l/new", "x")], THROUGH),
    "file over a link": (
        [link("./usr/l", "/OUTSIDE/precious"), member("./usr/l", b"x")], "'usr/l', which is there already"),
    "link over a file": ([member("./usr/l", b"x"), link("./usr/l", "y")], "'usr/l', which is there already"),
    "file twice": ([member("./usr/l", b"x"), member("./usr/l", b"y")], "'usr/l', which is there already"),
    "hard link outside": ([hard("./usr/l", "/OUTSIDE/precious")], "absolute"),
    "hard link with dots": ([hard("./usr/l", "../../../../outside/precious")], "'..'"),
    "hard link to what it did not bring": ([hard("./usr/l", "./usr/other")], "which it did not bring"),
    "hard link to a link": (
        [link("./usr/l", "/OUTSIDE/precious"), hard("./usr/m", "./usr/l")], "which it did not bring"),
    "hard link through a link": (
        [link("./usr/l", "/OUTSIDE"), hard("./usr/m", "./usr/l/precious")], "which it did not bring"),
    "top-level link replaced": ([link("./lib", "/OUTSIDE"), member("./lib/new", b"x")], "which is there"),
    "character device": ([member("./dev/null", type=tarfile.CHRTYPE, devmajor=1)], "neither file"),
    "block device": ([member("./dev/sda", type=tarfile.BLKTYPE, devmajor=8)], "neither file"),
    "fifo": ([member("./usr/fifo", type=tarfile.FIFOTYPE)], "neither file"),
    "overlong path": ([member("./" + "d/" * 600 + "f", b"x")], "overlong"),
    "empty link": ([link("./usr/l", "")], "link"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_malicious_package(shop: Workshop, outside: Path, name: str) -> None:
    members, says = BAD[name]
    for info, _ in members:
        info.name = info.name.replace("OUTSIDE", str(outside)[1:])
        info.linkname = info.linkname.replace("/OUTSIDE", str(outside))
    shop.add("good", package_file(member("./usr/good", b"g")))
    shop.add("evil", package_file(*members))
    with pytest.raises(BuildError) as caught:
        shop.ensure()
    message = str(caught.value)
    assert message.startswith("recipes/toolchain.lock: evil: ")
    assert says in message
    assert "\n" not in message
    assert [p.name for p in shop.trees.iterdir()] == [".lock-t"]
    # Positive control: without the evil one it works.
    del shop.packages[1]
    assert (shop.ensure().path / "usr/good").read_bytes() == b"g"


def sized(size: int) -> bytes:
    """A tar whose only member claims this size and brings 512 bytes."""
    info = tarfile.TarInfo("./usr/huge")
    info.size = size
    return info.tobuf(format=tarfile.GNU_FORMAT) + b"\0" * 512


DAMAGED = {
    "not a package": (b"hello", "no ar archive"),
    "empty": (b"", "no ar archive"),
    "no data": (ar(("debian-binary", b"2.0\n")), "no data.tar member"),
    "member longer than the file": (ar(("data.tar", b"x" * 100))[:-50], "ends after the file"),
    "negative size": (ar(("data.tar", b"")).replace(b"0         `", b"-1        `"), "broken ar header"),
    "data that is no tar": (ar(("data.tar.gz", gzip.compress(b"no tar" * 1000))), "is damaged"),
    "cut gzip": (
        ar(
            (
                "data.tar.gz",
                gzip.compress(tar([member("./usr/x", random.Random(1).randbytes(90_000))]))[:50_000],
            )
        ),
        "is damaged",
    ),
    "claims 8 GiB": (ar(("data.tar", sized((8 << 30) - 1))), "unpacks to more than"),
    "claims 8 EiB": (ar(("data.tar", sized((1 << 63) - 1))), "is damaged|unpacks to more than"),
    "claims more than it brings": (ar(("data.tar", sized(1 << 20))), "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_package(shop: Workshop, name: str) -> None:
    data, says = DAMAGED[name]
    shop.add("bad", data)
    with pytest.raises(BuildError, match=rf"recipes/toolchain\.lock: bad: .*({says})"):
        shop.ensure()
    assert [p.name for p in shop.trees.iterdir()] == [".lock-t"]


def test_bomb_is_stopped_by_its_size(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "_MAX_UNPACKED", 1 << 20)
    shop.add("bomb", package_file(*(member(f"./usr/zero{i}", bytes(1 << 18)) for i in range(5))))
    with pytest.raises(BuildError, match="unpacks to more than 1048576 bytes at 'usr/zero4'"):
        shop.ensure()


def test_what_is_skipped_counts_too(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = [member(f"./usr/share/doc/zero{i}", bytes(1 << 18)) for i in range(5)]
    shop.add("bomb", package_file(member("./usr/x"), *zeros))
    assert [p.name for p in (shop.ensure().path / "usr").iterdir() if p.is_file()] == ["x"]
    shutil.rmtree(shop.trees)
    monkeypatch.setattr(deb, "_MAX_UNPACKED", 1 << 20)
    with pytest.raises(BuildError, match="unpacks to more than 1048576 bytes at 'usr/share/doc/zero4'"):
        shop.ensure()
    monkeypatch.undo()
    monkeypatch.setattr(deb, "_MAX_MEMBERS", 5)
    with pytest.raises(BuildError, match="more than 5 members"):
        shop.ensure()


def test_too_many_members(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "_MAX_MEMBERS", 10)
    shop.add("many", package_file(*(member(f"./usr/{i}") for i in range(11))))
    with pytest.raises(BuildError, match="more than 10 members"):
        shop.ensure()


def test_two_packages_with_the_same_file(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    shop.add("b", package_file(member("./usr/x", b"2")))
    with pytest.raises(BuildError, match="'usr/x', which is there already"):
        shop.ensure()


def test_link_of_one_package_does_not_redirect_another(shop: Workshop, outside: Path) -> None:
    shop.add("a", package_file(link("./usr/share", str(outside))))
    shop.add("b", package_file(member("./usr/share/new", b"x")))
    with pytest.raises(BuildError, match="usr/share"):
        shop.ensure()
