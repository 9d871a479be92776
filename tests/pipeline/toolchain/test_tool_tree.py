# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tool trees: malicious packages leave nothing outside, good ones give what dpkg-deb would."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine import merkle
from tools.pipeline.engine.cas import Cas
from tools.pipeline.engine.seal import Seal
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sources.pins import Archive, Package, Pin, PoolFile, ToolchainLock
from tools.pipeline.sources.wanted import Architecture, Layout, Toolchain, WantedTree
from tools.pipeline.toolchain import deb, tool_tree

ROOT = Path(__file__).resolve().parents[3]
LAYOUT = Layout(merged=("bin", "lib"), folders=("build", "var/tmp"), skip=("usr/share/doc",))


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; a file unless `type` says otherwise."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


def ar(*parts: tuple[str, bytes]) -> bytes:
    """deb(5): an ar archive in common format."""
    out = b"!<arch>\n"
    for name, data in parts:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def package_file(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return ar(
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", gzip.compress(b"x")),
        ("data.tar.gz", gzip.compress(tar(members))),
    )


class Workshop:
    """Packages made in the test, put into a cache and set up as tree `t`."""

    def __init__(self, where: Path) -> None:
        self.cache = Cas(root=where / "cache")
        self.trees = where / "trees"
        self.seal = Seal(key=b"k" * 32)
        self.packages: list[Package] = []
        self.links: tuple[tuple[str, str], ...] = ()

    def add(self, name: str, data: bytes, *, cached: bool = True) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        if cached:
            path = self.cache.path(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        origin = PoolFile(archive=Archive.DEBIAN, path=f"pool/{name}_1_all.deb")
        pin = Pin(
            name=name,
            version="1",
            sha256=sha256,
            size=len(data),
            origin=origin,
            lock="recipes/toolchain.lock",
        )
        self.packages.append(Package(pin=pin, architecture=Architecture.ALL, trees=("t",)))

    def ensure(self, layout: Layout = LAYOUT, jobs: int = 2, name: str = "t") -> Tree:
        wanted = WantedTree(name=name, packages=("a",), links=self.links)
        toolchain = Toolchain(suite="s", architecture=Architecture.AMD64, layout=layout, trees=(wanted,))
        packages = tuple(replace(package, trees=(name,)) for package in self.packages)
        lock = ToolchainLock(suite="s", wanted=((name, ("a",)),), packages=packages)
        return tool_tree.ensure_tree(
            name, toolchain=toolchain, lock=lock, cache=self.cache, trees=self.trees, seal=self.seal, jobs=jobs
        )


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "shop")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Everything beside the workshop; must be as it was when the test ends."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_text("untouched")
    yield place
    assert [p.name for p in place.iterdir()] == ["precious"]
    assert (place / "precious").read_text() == "untouched"


def test_good_tree(shop: Workshop) -> None:
    shop.links = (("usr/bin/cc", "prog"),)
    shop.add("a", package_file(
        folder("./"), folder("./usr/"), folder("./usr/bin", mode=0o700),
        member("./usr/bin/prog", b"#!", mode=0o4755), hard("./usr/bin/twin", "./usr/bin/prog"),
        member("./lib/data", b"data", mode=0o600), link("./usr/lib/abs", "/etc/passwd"),
        link("./bin", "usr/bin"),
        member("./usr/share/doc/a/readme", b"skipped"),
    ))  # fmt: skip
    shop.add("b", package_file(folder("./usr/"), folder("./usr/bin"), member("./usr/bin/other", b"o")))
    made = shop.ensure()
    root = made.path
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "usr/lib/data").read_bytes() == b"data"
    assert (root / "usr/lib/abs").readlink() == Path("/etc/passwd")
    assert (root / "usr/bin/cc").readlink() == Path("prog")
    assert not (root / "usr/share").exists()
    assert (root / "var/tmp").is_dir()
    prog = (root / "usr/bin/prog").stat()
    assert stat.S_IMODE(prog.st_mode) == 0o755  # set-uid dropped
    assert prog.st_ino == (root / "usr/bin/twin").stat().st_ino
    assert stat.S_IMODE((root / "usr/lib/data").stat().st_mode) == 0o644
    assert stat.S_IMODE((root / "usr/bin").stat().st_mode) == 0o755
    times = {p.lstat().st_mtime for p in [root, *root.rglob("*")]}
    assert times == {deb.MTIME}
    assert made.digest == merkle.read(root).digest().sha256
    assert tool_tree.is_intact(made)


def test_second_call_makes_nothing(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    first = shop.ensure()
    before = first.path.stat().st_ctime_ns
    shutil.rmtree(shop.cache.root)
    assert shop.ensure() == first
    assert first.path.stat().st_ctime_ns == before


def test_digest_does_not_depend_on_umask_or_jobs(shop: Workshop) -> None:
    for i in range(20):
        shop.add(f"p{i}", package_file(folder(f"./usr/d{i % 3}"), member(f"./usr/d{i % 3}/f{i}", bytes([i]))))
    first = shop.ensure(jobs=1)
    modes = {p.relative_to(first.path): p.lstat().st_mode for p in first.path.rglob("*")}
    tool_tree.remove(first.path.parent)
    old = os.umask(0o077)
    try:
        second = shop.ensure(jobs=4)
    finally:
        os.umask(old)
    assert second == first
    assert {p.relative_to(second.path): p.lstat().st_mode for p in second.path.rglob("*")} == modes
    assert stat.S_IMODE(second.path.parent.stat().st_mode) == 0o755


def test_key_depends_on_everything(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    paths = {shop.ensure().path}
    paths.add(shop.ensure(Layout(merged=("bin",), folders=(), skip=())).path)
    shop.links = (("usr/y", "x"),)
    paths.add(shop.ensure().path)
    shop.packages.clear()
    shop.add("a", package_file(member("./usr/x", b"2")))
    paths.add(shop.ensure().path)
    assert len(paths) == 4


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


def test_layout_link_in_the_way(shop: Workshop) -> None:
    shop.links = (("usr/x", "y"),)
    shop.add("a", package_file(member("./usr/x", b"1")))
    with pytest.raises(BuildError, match=r"recipes/toolchain\.toml: usr/x: a package brings this path already"):
        shop.ensure()


def test_layout_link_through_a_link(shop: Workshop, outside: Path) -> None:
    shop.links = (("usr/l/cc", "y"),)
    shop.add("a", package_file(link("./usr/l", str(outside))))
    with pytest.raises(BuildError, match="is not in a real folder of the tree"):
        shop.ensure()


def test_missing_and_corrupted_cache_entries(shop: Workshop) -> None:
    data = package_file(member("./usr/x", b"1"))
    shop.add("a", data, cached=False)
    with pytest.raises(BuildError, match=r"recipes/toolchain\.lock: a: is not in the cache; run \./doit build"):
        shop.ensure()
    shop.packages.clear()
    shop.add("a", data)
    shop.cache.path(shop.packages[0].pin.sha256).write_bytes(data[:-1] + b"?")
    with pytest.raises(BuildError, match="is not in the cache"):
        shop.ensure()


def test_changed_tree_is_noticed(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    made = shop.ensure()
    assert tool_tree.is_intact(made)
    (made.path / "usr/x").write_bytes(b"2")
    assert not tool_tree.is_intact(made)


def test_a_planted_tree_is_not_taken(shop: Workshop) -> None:
    """Complete, with a record that fits it, but sealed by somebody else."""
    shop.add("a", package_file(member("./usr/x", b"1")))
    made = shop.ensure()
    record = made.path.parent / "tree.json"
    genuine = json.loads(record.read_bytes())
    thing = {"kind": genuine["kind"], "key": genuine["key"]}
    (made.path / "usr/x").write_bytes(b"2")
    forged = {**genuine["record"], "digest": merkle.read(made.path).digest().sha256}
    Seal(key=b"K" * 32).write(record, forged, **thing)
    again = shop.ensure()
    assert again == made
    assert (again.path / "usr/x").read_bytes() == b"1"
    # The control: with the right key it would have been believed.
    (made.path / "usr/x").write_bytes(b"2")
    Seal(key=b"k" * 32).write(record, forged, **thing)
    assert shop.ensure().digest == forged["digest"]


def test_a_genuine_tree_is_not_taken_in_anothers_place(shop: Workshop) -> None:
    """Last year's tree where this year's belongs (a rollback), and one tree for another."""
    shop.add("a", package_file(member("./usr/x", b"old")))
    old = shop.ensure()
    shop.packages.clear()
    shop.add("a", package_file(member("./usr/x", b"new")))
    new = shop.ensure()
    other = shop.ensure(name="other")
    for victim, planted in ((new, old), (other, old), (new, other)):
        shutil.rmtree(victim.path.parent)
        shutil.copytree(planted.path.parent, victim.path.parent, symlinks=True)
        made = shop.ensure(name=victim.path.parent.name.partition("-")[0])
        assert made == victim
        assert (made.path / "usr/x").read_bytes() == b"new"
    # The control: in its own place it is taken, and not made again.
    number = new.path.stat().st_ino
    assert shop.ensure() == new
    assert new.path.stat().st_ino == number


def test_a_place_where_others_can_write_is_refused(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    made = shop.ensure()
    for folder, says in ((shop.trees, "chmod go-w"), (shop.trees.parent, r"chmod \+t")):
        mode = folder.stat().st_mode
        folder.chmod(0o777)
        with pytest.raises(UserError, match=rf"{folder}: others can write there .*{says}"):
            shop.ensure()
        folder.chmod(mode)
    shop.trees.parent.chmod(0o1777)
    assert shop.ensure() == made


@pytest.mark.parametrize("inner", ["..", ".", "usr", "usr/x"])
def test_a_tree_that_others_could_change_is_made_again(shop: Workshop, inner: str) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    made = shop.ensure()
    (made.path / inner).chmod(0o777)
    number = made.path.stat().st_ino
    assert not tool_tree.is_intact(made) or inner == ".."
    assert shop.ensure() == made
    assert (made.path.stat().st_ino == number) is (inner.startswith("usr"))


def test_a_lock_that_is_a_link_is_not_followed(shop: Workshop, outside: Path) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    shop.trees.mkdir(parents=True, mode=0o755)
    (shop.trees / ".lock-t").symlink_to(outside / "new")
    with pytest.raises(UserError, match=r"\.lock-t: is a link"):
        shop.ensure()


def test_golden_key_and_digest(shop: Workshop) -> None:
    """When the digest differs for these packages, or the key for this description: raise TREE_VERSION."""
    shop.links = (("usr/bin/cc", "prog"),)
    shop.add("a", package_file(member("./usr/bin/prog", b"#!", mode=0o755), link("./usr/l", "prog"), folder("./usr/e")))
    made = shop.ensure()
    assert tool_tree.TREE_VERSION == 1
    assert made.digest == "cd2c6edabae75e843ead35ab3502e433c6fb2e97dd1f9917dc2fb6ee764e9dbb"
    # The package's own digest holds a time, so the key is of another.
    pin = replace(shop.packages[0].pin, sha256="0" * 64)
    wanted = WantedTree(name="t", packages=("a",), links=shop.links)
    assert (
        tool_tree.key(wanted, LAYOUT, [replace(shop.packages[0], pin=pin)])
        == "b1c4654dcb71a0339ccdcd6cbe9c94cf6e6a6a0c4ac50bc1ae627adafa33dbc7"
    )


def test_incomplete_tree_is_not_taken(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"1")))
    made = shop.ensure()
    (made.path.parent / "tree.json").unlink()
    (made.path / "usr/x").unlink()
    again = shop.ensure()
    assert again == made
    assert tool_tree.is_intact(again)


INTERRUPTED = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from tests.pipeline.toolchain.test_tool_tree import Workshop, big
shop = Workshop(Path(sys.argv[3]))
big(shop)
shop.ensure()
"""


def big(shop: Workshop) -> None:
    data = random.Random(7).randbytes(1 << 20)
    for i in range(40):
        shop.add(f"p{i:02}", ar(("data.tar", tar([member(f"./usr/f{i}", data[i:])]))))


def test_killed_set_up_leaves_nothing_that_counts(shop: Workshop, tmp_path: Path) -> None:
    big(shop)
    reference = Workshop(tmp_path / "reference")
    big(reference)
    expected = reference.ensure().digest
    argv = [sys.executable, "-c", INTERRUPTED, str(ROOT), str(Path(__file__).parent), str(tmp_path / "shop")]
    killed = 0
    ticks = threading.Event()
    for count in (1, 10, 25):
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if sum(1 for _ in shop.trees.glob(".t.*/root/usr/f*")) >= count:
                process.send_signal(signal.SIGKILL)
                process.wait()
            ticks.wait(0.001)
        killed += process.returncode == -signal.SIGKILL
        complete = [p for p in shop.trees.iterdir() if not p.name.startswith(".")]
        assert complete == [] or process.returncode == 0
    assert killed, "no run was interrupted"
    made = shop.ensure()
    assert made.digest == expected
    # What the killed runs left is gone.
    assert sorted(p.name for p in shop.trees.iterdir()) == [".lock-t", made.path.parent.name]


def test_concurrent_set_ups_agree(shop: Workshop) -> None:
    big(shop)
    results: list[Tree] = []
    threads = [threading.Thread(target=lambda: results.append(shop.ensure())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert len(set(results)) == 1
    assert tool_tree.is_intact(results[0])
    assert sorted(p.name for p in shop.trees.iterdir()) == [".lock-t", results[0].path.parent.name]


def test_old_trees_are_pruned(shop: Workshop) -> None:
    made = []
    for i in range(5):
        shop.packages.clear()
        shop.add("a", package_file(member("./usr/x", bytes([i]))))
        made.append(shop.ensure())
    assert [t.path.exists() for t in made] == [False, False, True, True, True]
