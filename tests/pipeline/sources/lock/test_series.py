# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A source of a series: `./doit lock` takes the newest version whose files a mirror really serves, on loopback."""

import re

import pytest

from tests.pipeline.sources.lock.test_fallback import DEBIAN_PART, check_fresh, kernels
from tests.pipeline.sources.lock.world import World, world
from tests.pipeline.sources.loopback import Reply, Site
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import resolver, wanted
from tools.pipeline.sources.wanted import Kind, WantedSource

__all__ = ["world"]

VERSION = 'version = "6.12.107-1"\nfile = "linux_6.12.107.orig.tar.xz"'
SERIES = 'series = "6.12"\nfile = "linux_{upstream}.orig.tar.xz"'


@pytest.fixture
def mirror(world: World, site: Site) -> Site:
    """The mirror of a checkout that wants series 6.12: a server that has nothing but 6.12.107."""
    world.edit("sources.toml", VERSION, SERIES)
    serve(world, site, "6.12.107-1")
    world.place = site.base
    for name in ("gcc_14.2", "libc6_2.41", "qemu_10.0"):
        file = f"{name}_amd64.deb"
        site.replies[f"/debian/pool/main/{file}"] = [
            Reply(body=file.removesuffix("_amd64.deb").replace("_", " ").encode())
        ]
    return site


def serve(world: World, site: Site, *versions: str, answer: Reply | None = None) -> None:
    """The server has the files of these versions, or another answer to whoever asks for them."""
    world.source_versions = sorted({*world.source_versions, *versions})
    for version in versions:
        for found in world.source("linux", version):
            site.replies[f"/debian/{found.origin.path}"] = [answer or Reply(body=found.file.encode())]


def announce(world: World, site: Site, *versions: str) -> None:
    """The index lists these, and the server answers 404 for their files."""
    serve(world, site, *versions, answer=Reply(status=404))


def asked_for(site: Site) -> list[str]:
    """The kernels that the server was asked for, in order, each once."""
    found = [match[1] for request in site.requests if (match := re.search(r"linux_([0-9.]+)\.orig", request.path))]
    return list(dict.fromkeys(found))


def test_it_walks_back_to_what_is_really_served(world: World, mirror: Site, capfd: pytest.CaptureFixture[str]) -> None:
    announce(world, mirror, "6.12.113-1", "6.12.118-1")
    serve(world, mirror, "6.12.111-1", "6.12.99-1")
    world.lock()
    assert kernels(world) == {"linux": "6.12.111-1"}
    assert asked_for(mirror) == ["6.12.118", "6.12.113", "6.12.111"]
    said = "note: linux 6.12.118-1, 6.12.113-1: listed, but no mirror has the file (404 Not Found); taking 6.12.111-1"
    assert said in capfd.readouterr().err
    assert 'asked_series = "6.12"\nasked_file = "linux_{upstream}.orig.tar.xz"\n' in world.text()[0]
    check_fresh(world)
    assert world.lock("linux") == []
    # The newest has come: no line of sources.toml is touched for it.
    serve(world, mirror, "6.12.118-1")
    assert world.lock("linux") == ["updated  linux 6.12.111-1 → 6.12.118-1"]
    check_fresh(world)
    assert world.matters == []


def test_the_files_of_a_package_are_taken_in_one_version(world: World, mirror: Site) -> None:
    part = DEBIAN_PART.replace('version = "6.12.107-1"', 'series = "6.12"').replace("_6.12.107-1.", "_{version}.")
    world.edit("sources.toml", "[source.extra]", f"{part}[source.extra]")
    world.sources.append("linux_6.12.107-1.debian.tar.xz")
    serve(world, mirror, "6.12.107-1", "6.12.111-1")
    packaging = "/debian/pool/main/linux_6.12.111-1.debian.tar.xz"
    there, mirror.replies[packaging] = mirror.replies[packaging], [Reply(status=404)]
    world.lock()
    assert kernels(world) == {"linux": "6.12.107-1", "linux-debian": "6.12.107-1"}
    mirror.replies[packaging] = there
    # One name moves both.
    assert len(world.lock("linux")) == 2
    assert kernels(world) == {"linux": "6.12.111-1", "linux-debian": "6.12.111-1"}


def test_another_series_is_none_of_it(world: World, mirror: Site) -> None:
    serve(world, mirror, "6.18.15-1~bpo13+1", "6.1.176-1", "6.120.1-1", "7.1.13-1")
    world.lock()
    assert kernels(world) == {"linux": "6.12.107-1"}
    world.edit("sources.toml", '"6.12"', '"6.18"')
    assert world.lock("linux") == ["updated  linux 6.12.107-1 → 6.18.15-1~bpo13+1"]
    assert "linux_6.18.15.orig.tar.xz" in world.text()[0]


def test_it_never_goes_back(world: World, mirror: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """A mirror that holds back what is pinned, and an index that has lost it: no consent is asked for, none needed."""
    world.lock()
    serve(world, mirror, "6.12.99-1")
    announce(world, mirror, "6.12.107-1", "6.12.118-1")
    assert world.lock("linux") == []
    assert "6.12.118-1: listed, but no mirror has the file (404 Not Found); taking 6.12.107-1" in capfd.readouterr().err
    world.source_versions.remove("6.12.107-1")
    assert world.lock("linux") == []
    assert "6.12.118-1: listed, but no mirror has the file (404 Not Found); 6.12.107-1 stays" in capfd.readouterr().err
    world.source_versions.remove("6.12.118-1")
    assert world.lock("linux") == []
    assert "linux: the index has nothing of 6.12 from 6.12.107-1 on, which stays pinned" in capfd.readouterr().err
    assert (kernels(world), world.matters) == ({"linux": "6.12.107-1"}, [])


def test_nothing_of_it_can_be_had(world: World, mirror: Site) -> None:
    before = world.text()
    announce(world, mirror, "6.12.107-1", "6.12.118-1")
    with pytest.raises(BuildError, match=r"linux: 6\.12\.118-1 .* nor any other version of 6\.12"):
        world.lock()
    world.edit("sources.toml", '"6.12"', '"7.9"')
    with pytest.raises(
        UserError, match=r"source\.linux: the index has no linux of series 7\.9 .*; it has 6\.12\.118-1"
    ):
        world.lock()
    assert world.text() == before


def test_a_mirror_that_does_not_answer_is_no_reason_to_walk_on(world: World, mirror: Site) -> None:
    world.lock()
    serve(world, mirror, "6.12.118-1", answer=Reply(status=503))
    before = world.text()
    with pytest.raises(BuildError, match=r"linux: 6\.12\.118-1 .*503"):
        world.lock("linux")
    assert world.text() == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            SERIES,
            SERIES.replace("{upstream}", "6.12.107"),
            r"file: 'linux_6\.12\.107\.orig\.tar\.xz' is that of one version",
        ),
        (
            SERIES,
            SERIES.replace("upstream", "other"),
            r"file: 'linux_\{other\}\.orig\.tar\.xz' is not a file name with",
        ),
        (SERIES, SERIES.replace("6.12", "6.12.*"), r"series: '6\.12\.\*' is not the beginning of versions"),
        (SERIES, f'{SERIES}\nsize = 5\nsha256 = "{"a" * 64}"', r"sha256: no bytes can be promised of a series"),
        (SERIES, f'{SERIES}\nversion = "6.12.107-1"', r"version"),
        (SERIES, f'{SERIES}\nsuite = "trixie/updates"', r"suite: 'trixie/updates' is not a Debian suite"),
    ],
)
def test_what_sources_toml_may_not_say(world: World, mirror: Site, old: str, new: str, says: str) -> None:
    world.edit("sources.toml", old, new)
    with pytest.raises(UserError, match=rf"^recipes/sources\.toml: source\.linux\.{says}"):
        world.lock()


@pytest.mark.parametrize(
    ("version", "series", "there"),
    [
        ("6.12.107-1", "6.12", True),
        ("6.18.15-1~bpo13+1", "6.18", True),
        ("6.12-1~exp1", "6.12", True),
        ("7.3~rc7-1~exp1", "7.3", True),
        ("1:10.2.2+ds-1", "10.2", True),
        ("2025.02-8+deb13u1", "2025.02", True),
        ("6.1.107-1", "6.12", False),
        ("6.120.1-1", "6.12", False),
        ("16.12.1-1", "6.12", False),
    ],
)
def test_which_versions_are_of_a_series(version: str, series: str, there: bool) -> None:
    assert wanted.in_series(version, series) is there


def test_what_a_file_is_called() -> None:
    want = WantedSource(
        name="q", kind=Kind.DEBIAN_SOURCE, version="", series="10.2", licence="MIT", package="qemu",
        file="qemu_{upstream}-{version}.tar.xz",
    )  # fmt: skip
    assert resolver.file_of(want, "1:10.2.2+ds-1") == "qemu_10.2.2+ds-10.2.2+ds-1.tar.xz"
