# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tool trees: what packages give, whose trees are believed, and set-ups that are killed or meet."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.toolchain.package_kit import LAYOUT, Workshop, big, folder, hard, link, member, package_file
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.seal import Seal
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sources.wanted import Layout, WantedTree
from tools.pipeline.toolchain import deb, tool_tree

ROOT = Path(__file__).resolve().parents[3]


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
    for place, says in ((shop.trees, "chmod go-w"), (shop.trees.parent, r"chmod \+t")):
        mode = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(UserError, match=rf"{place}: others can write there .*{says}"):
            shop.ensure()
        place.chmod(mode)
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
from tests.pipeline.toolchain.package_kit import Workshop, big
shop = Workshop(Path(sys.argv[3]))
big(shop)
shop.ensure()
"""


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


@contextlib.contextmanager
def another_process(tree: Tree, *, lives: bool) -> Iterator[None]:
    """That holds the tree, or has held it and is gone."""
    run = "from tools.pipeline.engine.tree import Tree\nfrom tools.pipeline.toolchain import tool_tree"
    code = f"import sys\nfrom pathlib import Path\n{run}\n"
    code += (
        f"assert tool_tree.hold(Tree(path=Path({str(tree.path)!r}), digest=''))\nprint(flush=True)\nsys.stdin.read()"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"\n"
        if not lives:
            process.kill()
            process.wait()
        yield
        process.stdin.close()


@pytest.mark.parametrize("lives", [True, False])
def test_a_tree_that_somebody_uses_is_not_cleared_away(shop: Workshop, *, lives: bool) -> None:
    """Neither by ./doit gc nor by who sets newer ones up; who is killed uses nothing."""
    shop.add("a", package_file(member("./usr/x", b"x")))
    used = shop.ensure()
    with another_process(used, lives=lives):
        assert tool_tree.in_use(used.path.parent) == lives
        for number in range(4):
            shop.packages.clear()
            shop.add("a", package_file(member("./usr/x", bytes([number]))))
            shop.ensure()
        assert used.path.exists() == lives
        if lives:
            tool_tree.remove_unused(used.path.parent)
            assert used.path.exists()
        others = [folder for folder, _ in tool_tree.folders(shop.trees) if folder != used.path.parent]
        tool_tree.remove_unused(others[0])
        assert not others[0].exists()


def test_a_tree_that_a_build_is_given_is_held(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"x")))
    folder = shop.ensure().path.parent
    assert not tool_tree.in_use(folder)
    assert shop.of_a_checkout().ensure("t").path.parent == folder
    assert tool_tree.in_use(folder)


def test_who_uses_a_tree_that_goes_at_that_moment_knows_it(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"x")))
    made = shop.ensure()
    assert tool_tree.hold(made)
    assert tool_tree.hold(made)
    tool_tree.remove(made.path.parent)
    assert not tool_tree.hold(made)
    assert tool_tree.hold(shop.ensure())


def test_no_link_is_followed_to_other_trees(shop: Workshop) -> None:
    shop.add("a", package_file(member("./usr/x", b"x")))
    made = shop.ensure()
    assert [folder for folder, _ in tool_tree.folders(shop.trees)] == [made.path.parent]
    moved = shop.trees.rename(shop.trees.with_name("elsewhere"))
    assert tool_tree.folders(shop.trees) == []
    shop.trees.symlink_to(moved)
    with pytest.raises(UserError, match="is a link or a file where a folder must be"):
        tool_tree.folders(shop.trees)
