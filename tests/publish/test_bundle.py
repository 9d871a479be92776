# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pinned files out of what was published, into an empty cache."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loopback import Relay, to
from tests.publish import kit
from tests.publish.kit import Server, wish
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.publish import bundle, publishing
from tools.pipeline.publish.bundle import Wish
from tools.pipeline.publish.publishing import Built
from tools.pipeline.sources import fetch, mirrors
from tools.pipeline.sources.pins import Pin


def pins_of(built: Built) -> list[Pin]:
    return [*(source.pin for source in built.sources), *(package.pin for package in built.packages)]


@pytest.fixture
def cache(tmp_path: Path) -> Cas:
    return Cas(root=tmp_path / "empty cache")


def bring(built: Built, cache: Cas, place: str) -> None:
    bundle.bring(pins_of(built), Wish(source=place, ca="", plain_http=True), cas=cache, root=built.root)


def complete(built: Built, cache: Cas) -> bool:
    return all(cache.verified(pin.sha256, pin.size) for pin in pins_of(built))


def spoil(server: Server, pin: Pin, change: Callable[[bytes], bytes]) -> None:
    (path,) = (server.folder / "data/docker/registry/v2/blobs/sha256").glob(f"*/{pin.sha256}/data")
    path.write_bytes(change(path.read_bytes()))


def test_from_a_registry(built: Built, server: Server, cache: Cas) -> None:
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    with pytest.raises(BuildError, match=r"team/thing:v2: is not there"):
        bring(built, cache, f"{server.host}/team/thing:v2")
    bring(built, cache, f"{server.host}/team/thing:v1")
    assert complete(built, cache)


def test_from_a_layout_and_what_it_lacks(built: Built, cache: Cas, tmp_path: Path) -> None:
    publishing.run(built, wish(str(tmp_path / "layout"), without_tools=True))
    with pytest.raises(BuildError, match=r"gcc: 1.0-1 .* could not be fetched"):
        bring(built, cache, str(tmp_path / "layout"))
    publishing.run(built, wish(str(tmp_path / "layout")))
    bring(built, cache, str(tmp_path / "layout"))
    assert complete(built, cache)


def test_a_registry_that_lacks_one(built: Built, server: Server, cache: Cas) -> None:
    publishing.run(built, wish(f"{server.host}/team/thing:v1", without_tools=True))
    with pytest.raises(BuildError, match=r"recipes/sources.lock: gcc: 1.0-1 could not be fetched: .*404"):
        bring(built, cache, f"{server.host}/team/thing:v1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "has other bytes in that place"),
        (lambda data: data[:-1], "sends 2097151 bytes"),
        (lambda data: data + b"x", "sends 2097153 bytes"),
    ],
)
def test_bytes_that_are_not_the_pins_do_not_count(
    built: Built, server: Server, cache: Cas, change: Callable[[bytes], bytes], says: str
) -> None:
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    pin = built.sources[0].pin
    spoil(server, pin, change)
    with pytest.raises(BuildError, match=says):
        bring(built, cache, f"{server.host}/team/thing:v1")
    assert not cache.has(pin.sha256, pin.size)


def test_a_pull_that_is_killed_goes_on_where_it_was(built: Built, server: Server, cache: Cas) -> None:
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    pin = built.sources[0].pin
    part = cache.root / "partial" / pin.sha256
    kit.killed_in(
        lambda host: bring(built, cache, f"{host}/team/thing:v1"),
        server, after=1_000_000, down=True, ready=lambda: part.stat().st_size > 200_000,
    )  # fmt: skip
    assert not complete(built, cache)
    with Relay(to(server.port)) as between:
        bring(built, cache, f"{between.host}/team/thing:v1")
    assert complete(built, cache)
    # The rest of the file only, and the small ones.
    assert between.down < sum(one.size for one in pins_of(built)) - 100_000


def test_what_a_killed_pull_left_is_not_believed(built: Built, server: Server, cache: Cas) -> None:
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    pin = built.sources[0].pin
    (cache.root / "partial").mkdir(parents=True)
    (cache.root / "partial" / pin.sha256).write_bytes(b"wrong" * 1000)
    bring(built, cache, f"{server.host}/team/thing:v1")
    assert complete(built, cache)


def test_a_published_artifact_is_a_mirror(built: Built, server: Server, tmp_path: Path) -> None:
    """SEV_ARTIFACTS_MIRROR=oci=…: a registry that anybody may read, and a layout."""
    publishing.run(built, wish(f"{server.host}/team/thing:v1"))
    publishing.run(built, wish(str(tmp_path / "layout")))
    for number, place in enumerate((f"http://{server.host}/v2/team/thing", (tmp_path / "layout").as_uri())):
        found = mirrors.from_setting([f"oci={place}"])
        empty = Cas(root=tmp_path / f"cache{number}")
        fetch.ensure(pins_of(built), cache=empty, mirrors=lambda found=found: found, root=built.root)  # type: ignore[misc]
        assert complete(built, empty)


@pytest.mark.parametrize("place", ["./none", "/none/at/all"])
def test_no_such_folder(built: Built, cache: Cas, place: str) -> None:
    with pytest.raises(UserError, match=f"--from {place}: is no folder"):
        bring(built, cache, place)
