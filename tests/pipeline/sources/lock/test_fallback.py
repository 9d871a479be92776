# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit lock` where the index lists what no mirror has: the newest that can be fetched, said so, never in silence
behind what is pinned."""

from collections.abc import Collection, Mapping, Sequence

import pytest

from tests.pipeline.sources.lock.world import World, world
from tests.pipeline.sources.loopback import Reply, Site
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import pins, resolve, resolver, wanted
from tools.pipeline.sources.apt import Apt, Found

__all__ = ["world"]

DEBIAN_PART = """\
[source.linux-debian]
kind = "debian-source"
package = "linux"
version = "6.12.107-1"
file = "linux_6.12.107-1.debian.tar.xz"
licence = "GPL-2.0-only"
"""


def ask_for(world: World, version: str) -> None:
    """Edit sources.toml as a person does who wants another kernel."""
    world.edit("sources.toml", "6.12.107-1", version)
    world.edit("sources.toml", "6.12.107", version.partition("-")[0])


def kernels(world: World) -> dict[str, str]:
    """Source → version, as the lock has them."""
    locked = pins.read_sources_lock(world.root / pins.SOURCES_LOCK)
    return {s.pin.name: s.pin.version for s in locked if s.pin.name.startswith("linux")}


def check_fresh(world: World) -> None:
    pins.check_fresh(
        world.root,
        sources=pins.read_sources_lock(world.root / pins.SOURCES_LOCK),
        toolchain=wanted.read_toolchain(world.root / wanted.TOOLCHAIN_TOML),
        locked=pins.read_toolchain_lock(world.root / pins.TOOLCHAIN_LOCK),
    )


def test_a_source_falls_back_and_says_so(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.list_kernels("6.12.99-1", "6.12.107-1", "6.12.111-1", "6.12.118-1", there=["6.12.99-1", "6.12.107-1"])
    ask_for(world, "6.12.118-1")
    world.lock()
    note = "note: linux 6.12.118-1: listed, but no mirror has the file (no such file); taking 6.12.107-1, the newest"
    assert note in capfd.readouterr().err
    assert kernels(world) == {"linux": "6.12.107-1"}
    check_fresh(world)  # the lock answers sources.toml as it is
    assert 'asked_version = "6.12.118-1"\nasked_file = "linux_6.12.118.orig.tar.xz"\n' in world.text()[0]
    before, world.asked = world.text(), 0
    assert world.lock() == []
    assert note in capfd.readouterr().err
    assert (world.text(), world.asked) == (before, 0)
    assert world.lock("linux") == []
    # The index stays as it is, and a mirror gets the file.
    world.list_kernels(*world.source_versions, there=["6.12.111-1"])
    assert world.lock() == ["updated  linux 6.12.107-1 → 6.12.111-1"]
    world.list_kernels(*world.source_versions, there=["6.12.118-1"])
    assert world.lock("linux") == ["updated  linux 6.12.111-1 → 6.12.118-1"]
    assert "asked_version" not in world.text()[0]
    assert world.matters == []


def test_the_files_of_a_source_package_go_together(world: World) -> None:
    world.edit("sources.toml", "[source.extra]", f"{DEBIAN_PART}[source.extra]")
    world.sources.append("linux_6.12.107-1.debian.tar.xz")
    world.list_kernels("6.12.107-1", "6.12.111-1", there=["6.12.107-1", "6.12.111-1"])
    (world.mirror / "debian/pool/main/linux_6.12.111-1.debian.tar.xz").unlink()
    ask_for(world, "6.12.111-1")
    world.lock()
    assert kernels(world) == {"linux": "6.12.107-1", "linux-debian": "6.12.107-1"}
    world.list_kernels(*world.source_versions, there=["6.12.111-1"])
    world.lock("linux")
    assert kernels(world) == {"linux": "6.12.111-1", "linux-debian": "6.12.111-1"}


def test_nothing_that_is_listed_can_be_fetched(world: World) -> None:
    before = world.text()
    world.list_kernels("6.12.111-1", "6.12.118-1")
    ask_for(world, "6.12.118-1")
    with pytest.raises(BuildError, match=r"linux: 6\.12\.118-1 .* nor any other version that the index lists\. Tried"):
        world.lock()
    assert world.text() == before


def test_promised_bytes_have_no_substitute(world: World) -> None:
    world.list_kernels("6.12.107-1", "6.12.118-1", there=["6.12.107-1"])
    ask_for(world, "6.12.118-1")
    digest = world.source("linux", "6.12.118-1")[1].sha256
    world.edit("sources.toml", "[source.extra]", f'sha256 = "{digest}"\nsize = 26\n[source.extra]')
    with pytest.raises(BuildError, match=r"linux: 6\.12\.118-1 .* could not be fetched\. Tried .*; set SEV_ARTIFACTS"):
        world.lock()


def test_a_source_goes_back_only_with_consent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.list_kernels("6.12.9-1", "6.12.107-1", there=["6.12.9-1", "6.12.107-1"])
    world.lock()
    # An index that has lost what is pinned, and announces what nobody has.
    world.list_kernels("6.12.9-1", "6.12.118-1")
    ask_for(world, "6.12.118-1")
    before = world.text()

    def refuse(matter: str, lines: Sequence[str]) -> None:
        raise UserError(f"{matter}: {lines}")

    with monkeypatch.context() as patch:
        patch.setattr(world, "confirm", refuse)
        with pytest.raises(UserError, match=r"older than what is pinned now.*linux 6\.12\.107-1 → 6\.12\.9-1"):
            world.lock()
    assert world.text() == before
    world.lock()
    assert (world.matters, world.shown) == ([resolve.OLDER], ["linux 6.12.107-1 → 6.12.9-1"])
    assert kernels(world) == {"linux": "6.12.9-1"}


def test_an_older_source_that_a_person_asks_for_needs_no_second_consent(world: World) -> None:
    world.list_kernels("6.12.9-1", "6.12.107-1", there=["6.12.9-1", "6.12.107-1"])
    world.lock()
    ask_for(world, "6.12.9-1")
    assert world.lock("linux") == ["updated  linux 6.12.107-1 → 6.12.9-1"]
    assert world.matters == []


@pytest.mark.parametrize(
    ("listed", "asked"), [("9.0", [resolve.OLDER]), ("10.0+deb13u1", []), ("10.0~rc1", [resolve.OLDER])]
)
def test_a_package_goes_back_only_with_consent(world: World, listed: str, asked: list[str]) -> None:
    world.lock()
    world.versions["qemu"] = [listed]
    world.publish_all()
    assert world.lock() == [f"updated  qemu 10.0 → {listed}"]
    assert world.matters == asked
    assert world.shown == [f"qemu 10.0 → {listed} (boot tree)"] * len(asked)


def test_what_is_locked_fits_together_when_newer_packages_do_not(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world.lock()
    world.versions |= {"gcc": ["15", "14.2"], "libc6": ["2.42", "2.41"]}
    world.publish_all()
    (world.mirror / "debian/pool/main/gcc_15_amd64.deb").unlink()
    plain = world.closure

    def closure(packages: Sequence[str], prefer: Mapping[str, str], avoid: Collection[tuple[str, str]]) -> list[Found]:
        answer = plain(packages, prefer, avoid)
        versions = {found.file.split("_")[0]: found.file.split("_")[1] for found in answer}
        if versions.get("gcc") == "14.2" and versions["libc6"] != "2.41":
            raise BuildError("gcc : Depends: libc6 (< 2.42) but 2.42 is to be installed")
        return answer

    monkeypatch.setattr(world, "closure", closure)
    assert world.lock("build") == []
    assert world.packages("build") == {"gcc": "14.2", "libc6": "2.41"}
    said = capfd.readouterr().err
    assert "note: gcc 15 (build tree): listed, but no mirror has the file (no such file); taking 14.2" in said
    world.versions["libc6"] = ["2.42"]
    with pytest.raises(
        BuildError, match=r"gcc: 15 .* and apt finds no other set of packages for the build tree\. Tried"
    ):
        world.lock("build")


def ask_a_site(world: World, site: Site, reply: Reply) -> str:
    """Lock, then want a kernel that is listed and that a mirror answers so about; its path there."""
    world.lock()
    world.place = site.base
    world.list_kernels("6.12.107-1", "6.12.118-1")
    ask_for(world, "6.12.118-1")
    path = "/debian/pool/main/linux_6.12.118.orig.tar.xz"
    site.replies[path] = [reply]
    return path


@pytest.mark.parametrize(
    ("reply", "says"),
    [(Reply(status=404), "404"), (Reply(status=410), "410 Gone"), (Reply(announce=7), "is 7 bytes long")],
)
def test_a_mirror_that_says_no(
    world: World, site: Site, reply: Reply, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ask_a_site(world, site, reply)
    world.lock("linux")
    assert kernels(world) == {"linux": "6.12.107-1"}
    assert says in capfd.readouterr().err


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(announce=None), "does not say how long the file is"),
        (Reply(announce=7, headers={"Content-Encoding": "gzip"}), "does not say how long the file is"),
        (
            Reply(status=302, headers={"Location": "/debian/pool/main/linux_6.12.118.orig.tar.xz"}),
            "redirects without end",
        ),
        *((Reply(status=status), str(status)) for status in (204, 401, 403, 405, 407, 429, 503)),
    ],
)
def test_a_mirror_that_does_not_say_no_is_no_reason(world: World, site: Site, reply: Reply, says: str) -> None:
    path = ask_a_site(world, site, reply)
    before = world.text()
    with pytest.raises(BuildError, match=rf"linux: 6\.12\.118-1 .*linux_6\.12\.118\.orig\.tar\.xz: {says}"):
        world.lock("linux")
    assert world.text() == before
    assert len([request for request in site.requests if request.path == path]) > 1  # once more


def test_what_mirrors_and_indexes_say_keeps_off_the_terminal(
    world: World, site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Apt, "precedes", lambda _, version, other: "\x1b" in version and version != other)
    ask_a_site(world, site, Reply(status=404, reason="\x1b[31mGone"))
    world.list_kernels("6.12.\x1b[2J9-1", "6.12.118-1")
    older = world.source("linux", "6.12.\x1b[2J9-1")[1]
    quoted = older.origin.path.replace("\x1b[", "%1B%5B")
    site.replies[f"/debian/{quoted}"] = [Reply(body=older.file.encode())]
    assert world.lock("linux") == [r"updated  linux 6.12.107-1 → 6.12.\x1b[2J9-1"]
    assert world.shown == [r"linux 6.12.107-1 → 6.12.\x1b[2J9-1"]
    said = capfd.readouterr().err
    assert r"404 \x1b[31mGone); taking 6.12.\x1b[2J9-1, the newest" in said
    assert "\x1b" not in said


def test_every_tree_that_falls_back_says_so(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.lock()
    world.versions |= {"libc6": ["2.42", "2.41"], "gcc": ["15", "14.2"]}
    world.publish_all()
    for file in ("libc6_2.42", "gcc_15"):
        (world.mirror / f"debian/pool/main/{file}_amd64.deb").unlink()
    expected = ["gcc 15 (build tree)", "libc6 2.42 (boot tree)", "libc6 2.42 (build tree)"]
    for _ in range(2):  # the second run remembers
        assert world.lock() == []
        notes = [line for line in capfd.readouterr().err.splitlines() if "listed, but no mirror has the file" in line]
        assert sorted(note.strip().removeprefix("note: ").partition(":")[0] for note in notes) == expected


@pytest.mark.parametrize(
    ("file", "version", "other", "expected"),
    [
        ("linux_6.12.107.orig.tar.xz", "6.12.107-1", "6.12.118-2", "linux_6.12.118.orig.tar.xz"),
        ("edk2_2025.02-8+deb13u1.debian.tar.xz", "2025.02-8+deb13u1", "2025.02-9", "edk2_2025.02-9.debian.tar.xz"),
        ("qemu_10.0.orig-x.tar.xz", "1:10.0-2", "1:10.1-1", "qemu_10.1.orig-x.tar.xz"),
        ("native_1.2.tar.xz", "1.2", "1.3", "native_1.3.tar.xz"),
        ("a-1_1.1.orig.tar.gz", "1.1-1", "2-1", "a-1_2.orig.tar.gz"),
    ],
)
def test_a_file_in_another_version(file: str, version: str, other: str, expected: str) -> None:
    assert resolver.named(file, version, other) == expected
