# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit lock`: what changed is told, what no mirror has is never pinned, and nothing is half-written."""

import hashlib

import pytest

from tests.pipeline.sources.lock.world import World, world
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import mirrors, pins, resolve, wanted

__all__ = ["world"]


def test_first_lock(world: World) -> None:
    assert world.lock() == [
        "added    extra 1",
        "added    linux 6.12.107-1",
        "removed  seed 1",
        "added    gcc 14.2",
        "added    libc6 2.41",
        "added    qemu 10.0",
        "removed  seed 1",
        "added    tree boot (2 packages)",
        "added    tree build (2 packages)",
        "removed  tree seed",
    ]
    assert world.shown == []
    sources = pins.read_sources_lock(world.root / pins.SOURCES_LOCK)
    assert [(s.pin.name, s.pin.size) for s in sources] == [("extra", 5), ("linux", 26)]
    locked = pins.read_toolchain_lock(world.root / pins.TOOLCHAIN_LOCK)
    assert {p.pin.name: p.trees for p in locked.packages} == {
        "gcc": ("build",),
        "libc6": ("boot", "build"),
        "qemu": ("boot",),
    }
    assert not any("://" in text for text in world.text())


def test_again_changes_nothing(world: World) -> None:
    world.lock()
    before = world.text()
    world.asked = 0
    assert world.lock() == []
    assert world.text() == before
    assert world.asked == 0  # the index is the same, so nobody asks it
    (world.root / "extra.txt").write_text("EXTRA")
    world.lock()
    assert world.asked == 2


def test_changes_are_told_and_check_writes_nothing(world: World) -> None:
    world.lock()
    before = world.text()
    world.versions |= {"libc6": ["2.42"], "gmp": ["6"]}
    world.closures |= {"gcc": ["gcc", "libc6", "gmp"], "qemu": ["qemu"]}
    world.publish_all()
    world.closures["qemu"] = ["libc6"]
    expected = ["added    gmp 6", "updated  libc6 2.41 → 2.42", "removed  qemu 10.0"]
    assert world.lock(check=True) == expected
    assert world.text() == before
    assert world.lock() == expected
    assert world.text() != before


def test_other_bytes_of_the_same_version_stand_out(world: World) -> None:
    world.lock()
    (world.root / "extra.txt").write_text("EXTRA")
    assert world.lock() == ["updated  extra 1: OTHER BYTES OR PLACE"]


def test_what_no_mirror_has_is_not_pinned(world: World) -> None:
    world.lock()
    before = world.text()
    world.versions["qemu"] = ["10.1"]
    with pytest.raises(BuildError, match=r"recipes/toolchain\.lock: qemu: 10\.1 .*no such file"):
        world.lock()
    assert world.text() == before


def test_file_that_the_source_package_has_not(world: World) -> None:
    world.sources = ["linux_6.12.107-1.dsc"]
    with pytest.raises(
        UserError, match=r"source\.linux: linux 6\.12\.107-1 has no file linux_6\.12\.107\.orig\.tar\.xz; it has"
    ):
        world.lock()


@pytest.mark.parametrize("name", [pins.SOURCES_LOCK, pins.TOOLCHAIN_LOCK])
def test_a_broken_lock_is_not_replaced(world: World, name: str) -> None:
    """What it had pinned, and what would be older than that, is not known."""
    world.lock()
    (world.root / name).write_text("<<<<<<< a merge conflict\n")
    with pytest.raises(UserError, match=f"^{name}: .*TOML"):
        world.lock()
    assert (world.root / name).read_text() == "<<<<<<< a merge conflict\n"


def test_only_a_tree_keeps_everything_else(world: World) -> None:
    world.lock()
    world.versions |= {"libc6": ["2.42", "2.41"], "qemu": ["10.1", "10.0"], "gcc": ["15.1", "14.2"]}
    world.publish_all()
    assert world.lock("boot") == ["added    libc6 2.42", "updated  qemu 10.0 → 10.1"]
    assert world.packages("build") == {"gcc": "14.2", "libc6": "2.41"}
    assert world.packages("boot") == {"qemu": "10.1", "libc6": "2.42"}
    assert world.lock("boot") == []
    assert world.lock() == ["updated  gcc 14.2 → 15.1", "removed  libc6 2.41"]


def test_new_tree_takes_what_others_have_pinned(world: World) -> None:
    world.lock()
    before = world.packages("build"), world.packages("boot")
    world.edit("toolchain.toml", "[trees.boot]", '[trees.python]\npackages = ["python3"]\n[trees.boot]')
    world.closures["python3"] = ["python3", "libc6"]
    world.versions |= {"libc6": ["2.42", "2.41"], "python3": ["3.13"]}
    world.publish_all()
    assert world.lock("python") == ["added    python3 3.13", "added    tree python (2 packages)"]
    assert world.packages("python") == {"python3": "3.13", "libc6": "2.41"}
    assert (world.packages("build"), world.packages("boot")) == before


def test_new_tree_takes_the_newest_where_the_index_has_nothing_else(world: World) -> None:
    world.lock()
    world.edit("toolchain.toml", "[trees.boot]", '[trees.python]\npackages = ["python3"]\n[trees.boot]')
    world.closures["python3"] = ["python3", "libc6"]
    world.versions |= {"libc6": ["2.42"], "python3": ["3.13"]}
    world.publish_all()
    assert "added    libc6 2.42" in world.lock("python")
    assert world.packages("python")["libc6"] == "2.42"
    assert world.packages("build")["libc6"] == "2.41"


def test_only_a_source(world: World) -> None:
    world.lock()
    trees = world.text()[1]
    world.versions["gcc"] = ["15.1"]
    (world.root / "extra.txt").write_text("EXTRA")
    assert world.lock("extra") == ["updated  extra 1: OTHER BYTES OR PLACE"]
    assert world.text()[1] == trees


def test_only_names_what_is_unknown_or_changed_too(world: World) -> None:
    world.lock()
    with pytest.raises(UserError, match=r"--only: there is no .*'lunix'; sources: extra, linux; trees: boot, build"):
        world.lock("lunix")
    world.edit("sources.toml", 'version = "1"', 'version = "2"')
    with pytest.raises(UserError, match=r"--only: extra changed too; give --only boot,extra"):
        world.lock("boot")
    world.lock("boot", "extra")
    world.edit("toolchain.toml", '"trixie"', '"forky"')
    with pytest.raises(UserError, match=r"--only: the locked suite is trixie, .* forky; leave --only out"):
        world.lock("boot")


def test_an_older_suite_comes_and_changes(world: World) -> None:
    """One that comes in touches no locked tree; one that changes may have changed any."""
    world.lock()
    before = world.text()[1]
    table = '[older]\nsuite = "bookworm"\npackages = ["qemu"]\n'
    world.edit("toolchain.toml", "[layout]", f"{table}[layout]")
    with pytest.raises(UserError, match=r"toolchain.lock: older\.suite: is for none, not bookworm; run ./doit lock"):
        fresh(world)
    assert world.lock("boot") == []
    assert world.text()[1] == before.replace('suite = "trixie"\n', f'suite = "trixie"\n\n{table}')
    fresh(world)
    for other, name in ((table.replace("bookworm", "bullseye"), "bullseye"), ("# none\n", "none")):
        world.edit("toolchain.toml", table, other)
        with pytest.raises(UserError, match=rf"--only: the locked suite is bookworm, .* for {name}; leave --only out"):
            world.lock("boot")
        world.edit("toolchain.toml", other, table)
    world.edit("toolchain.toml", table, "")
    world.lock()
    assert world.text()[1] == before


def test_what_may_come_from_the_older_suite_changes(world: World) -> None:
    """Another name touches no locked tree; one that is taken out, the trees that have the package."""
    world.edit("toolchain.toml", "[layout]", '[older]\nsuite = "bookworm"\npackages = ["qemu"]\n[layout]')
    world.lock()
    world.edit("toolchain.toml", '["qemu"]\n[layout]', '["gcc", "qemu"]\n[layout]')
    with pytest.raises(UserError, match=r"toolchain.lock: older\.packages: is for qemu, not gcc qemu; run ./doit lock"):
        fresh(world)
    assert world.lock("boot") == []
    fresh(world)
    world.edit("toolchain.toml", '["gcc", "qemu"]\n[layout]', '["qemu"]\n[layout]')
    with pytest.raises(UserError, match=r"--only: build changed too; give --only boot,build"):
        world.lock("boot")
    world.lock("build")
    fresh(world)


def fresh(world: World) -> None:
    """As at the start of every build."""
    pins.check_fresh(
        world.root,
        sources=pins.read_sources_lock(world.root / pins.SOURCES_LOCK),
        toolchain=wanted.read_toolchain(world.root / wanted.TOOLCHAIN_TOML),
        locked=pins.read_toolchain_lock(world.root / pins.TOOLCHAIN_LOCK),
    )


def test_listed_but_not_there_falls_back_and_says_so(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.versions["qemu"] = ["10.2", "10.1", "10.0"]
    (world.mirror / "debian/pool/main/qemu_10.1_amd64.deb").unlink(missing_ok=True)
    world.lock()
    assert world.packages("boot")["qemu"] == "10.0"
    said = capfd.readouterr().err
    for version in ("10.2", "10.1"):
        assert (
            f"note: qemu {version} (boot tree): listed, but no mirror has the file (no such file); taking 10.0" in said
        )
    world.publish_all()
    assert world.lock() == ["updated  qemu 10.0 → 10.2"]  # although the index is the same


def test_version_that_the_index_has_not_is_taken_from_the_pool_and_shown(world: World) -> None:
    world.lock()
    world.edit("sources.toml", "6.12.107", "6.16.3")
    data = b"another kernel"
    world.publish("pool/main/l/linux/linux_6.16.3.orig.tar.xz", data)
    assert world.lock("linux") == ["updated  linux 6.12.107-1 → 6.16.3-1"]
    assert world.shown == [f"linux 6.16.3-1: 14 B, sha256 {hashlib.sha256(data).hexdigest()}"]
    world.shown.clear()
    assert world.lock() == []
    assert world.shown == []  # it is pinned now


def test_a_promise_in_sources_toml_needs_no_consent(world: World) -> None:
    data = b"another kernel"
    digest = hashlib.sha256(data).hexdigest()
    world.edit("sources.toml", "6.12.107", "6.16.3")
    world.edit("sources.toml", "[source.extra]", f'sha256 = "{digest}"\nsize = {len(data)}\n[source.extra]')
    world.publish("pool/main/l/linux/linux_6.16.3.orig.tar.xz", data)
    world.lock()
    assert world.shown == []
    assert pins.read_sources_lock(world.root / pins.SOURCES_LOCK)[1].pin.sha256 == digest


def test_version_that_is_nowhere_says_what_was_tried(world: World) -> None:
    world.edit("sources.toml", "6.12.107", "6.16.3")
    with pytest.raises(UserError) as caught:
        world.lock()
    said = str(caught.value)
    assert "recipes/sources.toml: source.linux: linux 6.16.3-1 is neither in the index nor in a pool" in said
    assert f"{world.mirror.as_uri()}/debian/pool/main/l/linux/linux_6.16.3.orig.tar.xz: No such file" in said
    assert said.endswith("the index has 6.12.107-1")
    assert "\n" not in said


def test_refused_consent_writes_nothing(world: World) -> None:
    world.lock()
    before = world.text()
    world.edit("sources.toml", "6.12.107", "6.16.3")
    world.publish("pool/main/l/linux/linux_6.16.3.orig.tar.xz", b"another kernel")

    def refuse(_: str, __: object) -> None:
        raise UserError("no")

    known = mirrors.from_setting([f"bundle={world.mirror.as_uri()}"])
    with pytest.raises(UserError, match="no"):
        resolve.lock(root=world.root, folder=world.root / "apt", mirrors=known, confirm=refuse)
    assert world.text() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(MIT", "is not an SPDX license expression"),
        ("MIT or", "is not an SPDX license expression"),
        ("MIT Apache-2.0", "is not an SPDX license expression"),
        ("M$T", "is not an SPDX license expression"),
        ("GPL-7.0", "is not an SPDX license expression"),
        ("mit", "SPDX spells it 'MIT'"),
    ],
)
def test_licence(world: World, text: str, says: str) -> None:
    world.edit("sources.toml", '"Apache-2.0"', f'"{text}"')
    with pytest.raises(UserError, match=r"source\.extra\.licence: ") as caught:
        world.lock()
    assert says in str(caught.value)
    world.edit("sources.toml", f'"{text}"', '"(MIT OR Apache-2.0) AND LicenseRef-own"')
    world.lock()
