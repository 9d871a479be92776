# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fetching against a server that does what servers on the internet do."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline.sources.loopback import QUICK, Reply, Site, content, pin_for
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources import fetch
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.pins import Archive, LocalFile, Pin, Urls

ROOT = Path(__file__).resolve().parents[4]
MakeMirrors = Callable[..., Callable[[], Mirrors]]
DATA = content(3_000_000)
PIN = pin_for(DATA)


def no_mirrors() -> Mirrors:
    """Stands for a machine without any setting."""
    raise AssertionError("mirrors were asked for although nothing is missing")


def run(pins: list[Pin], cache: Cas, mirrors: Callable[[], Mirrors], root: Path = ROOT) -> None:
    fetch.ensure(pins, cache=cache, mirrors=mirrors, root=root, limits=QUICK)


def in_cache(cache: Cas, data: bytes) -> bool:
    path = cache.path(hashlib.sha256(data).hexdigest())
    return path.is_file() and path.read_bytes() == data


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def test_many_files_in_parallel_and_again_without_network(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    datas = [content(size, seed) for seed, size in enumerate([1, 70_000, 300_000, 1_000_000, 5, 6])]
    pins = [pin_for(data, name=f"file{i}") for i, data in enumerate(datas)]
    for pin, data in zip(pins, datas, strict=True):
        site.add(pin, Reply(body=data))
    run(pins, cache, mirrors())
    assert all(in_cache(cache, data) for data in datas)
    assert len(site.requests) == len(pins)
    assert names(cache.root / "partial") == []
    assert {cache.path(pin.sha256).stat().st_mode & 0o777 for pin in pins} == {0o444}
    site.close()
    run(pins, cache, no_mirrors)


def test_wrong_hash_is_deleted_and_the_next_mirror_asked(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA[:-1] + b"?"), mirror="/bad")
    site.add(PIN, Reply(body=DATA), mirror="/good")
    run([PIN], cache, mirrors("/bad", "/good"))
    assert in_cache(cache, DATA)
    assert [r.path.split("/")[1] for r in site.requests] == ["bad", "good"]
    # The second mirror was not asked to continue what the first had sent.
    assert site.requests[1].range is None


def test_wrong_hash_everywhere_names_pin_mirrors_reasons_and_remedies(
    site: Site, cache: Cas, mirrors: MakeMirrors
) -> None:
    site.add(PIN, Reply(body=content(len(DATA), 9)), mirror="/one")
    with pytest.raises(BuildError) as caught:
        run([PIN], cache, mirrors("/one", "/two"))
    message = str(caught.value)
    assert "\n" not in message
    place = "pool/main/thing.tar.xz"
    for part in (
        "recipes/sources.lock: thing",
        "1.0-1",
        PIN.sha256,
        f"{site.base}/one/{place}: wrong SHA-256",
        f"{site.base}/two/{place}: 404 Not Found",
        "SEV_ARTIFACTS_MIRROR",
        "snapshot",
        "bundle",
        "./doit lock",
    ):
        assert part in message
    assert not cache.path(PIN.sha256).exists()
    assert (cache.root / "partial" / PIN.sha256).stat().st_size == 0


def test_all_vanished_files_are_named_at_once(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    pins = [pin_for(content(10, i), name=f"file{i}") for i in range(4)]
    site.add(pins[2], Reply(body=content(10, 2)))
    with pytest.raises(BuildError) as caught:
        run(pins, cache, mirrors())
    message = str(caught.value)
    assert "file0" in message
    assert "likewise file1 1.0-1, file3 1.0-1" in message
    # What can be had is kept for the next try.
    assert in_cache(cache, content(10, 2))


@pytest.mark.parametrize("then", ["close", "reset", "hang"])
def test_broken_in_the_middle_is_resumed(site: Site, cache: Cas, mirrors: MakeMirrors, then: str) -> None:
    cut = 1_300_000
    site.add(PIN, Reply(body=DATA, cut=cut, then=then), Reply(body=DATA))
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    first, second = site.requests
    assert first.range is None
    assert second.range is not None
    start = int(second.range.removeprefix("bytes=").removesuffix("-"))
    # A reset may drop what was still in the sockets' buffers; nothing that arrived is fetched again.
    assert 0 < start <= cut
    assert second.sent == len(DATA) - start
    if then != "reset":
        assert start == cut


def test_truncated_without_a_length_is_resumed(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA, cut=1000, announce=None), Reply(body=DATA, announce=None))
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert site.requests[1].range == "bytes=1000-"


def test_server_that_ignores_range(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA, cut=500_000), Reply(body=DATA, ranges=False))
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert site.requests[1].range == "bytes=500000-"
    assert site.requests[1].sent == len(DATA)


@pytest.mark.parametrize("answer", ["bytes 0-2999999/3000000", "bytes 500000-2999999/4000000", "nonsense"])
def test_another_range_than_asked_for_is_not_believed(
    site: Site, cache: Cas, mirrors: MakeMirrors, answer: str
) -> None:
    broken = Reply(body=DATA, cut=500_000)
    site.add(PIN, broken, Reply(body=DATA, content_range=answer), Reply(body=DATA))
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert [r.range for r in site.requests] == [None, "bytes=500000-", None]


def test_rotten_partial_file_is_started_again(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    partial = cache.root / "partial" / PIN.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"rotten" * 1000)
    site.add(PIN, Reply(body=DATA))
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert [r.range for r in site.requests] == ["bytes=6000-", None]


def test_overlong_partial_file_is_started_again(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    partial = cache.root / "partial" / PIN.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA + b"more")
    site.add(PIN, Reply(body=DATA))
    run([PIN], cache, mirrors())
    assert [r.range for r in site.requests] == [None]


def test_complete_partial_file_needs_no_request(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    partial = cache.root / "partial" / PIN.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA)
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert site.requests == []


def test_404_on_the_first_mirror_then_the_second(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA), mirror="/second")
    run([PIN], cache, mirrors("/first", "/second"))
    assert in_cache(cache, DATA)
    assert [r.path.split("/")[1] for r in site.requests] == ["first", "second"]


def test_server_error_is_tried_again_a_bounded_number_of_times(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(status=503), Reply(status=503), Reply(body=DATA))
    run([PIN], cache, mirrors())
    assert len(site.requests) == 3
    other = pin_for(content(50, 5), name="never")
    site.add(other, Reply(status=500))
    with pytest.raises(BuildError, match="500 Internal Server Error"):
        run([other], cache, mirrors())
    assert len(site.requests) == 3 + QUICK.rounds


def test_file_not_found_is_not_asked_for_twice(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    with pytest.raises(BuildError, match="404"):
        run([PIN], cache, mirrors())
    assert len(site.requests) == 1


def test_resets_that_make_no_progress_end(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    # Ignores ranges and always breaks at the same place: without a bound this would never end.
    site.add(PIN, Reply(body=DATA, ranges=False, cut=2_000_000))
    with pytest.raises(BuildError, match="ended"):
        run([PIN], cache, mirrors())
    assert len(site.requests) <= 3 * QUICK.rounds


def test_many_breaks_with_progress_succeed(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    data = content(8_000_000, 4)
    pin = pin_for(data, name="large")
    breaks = [Reply(body=data, cut=1_200_000) for _ in range(6)]
    site.add(pin, *breaks, Reply(body=data))
    run([pin], cache, mirrors())
    assert in_cache(cache, data)
    assert sum(r.sent for r in site.requests) == len(data)


@pytest.mark.parametrize("announce", [len(DATA) + 1, 10, 1 << 40])
def test_another_announced_size_is_refused_before_a_byte_is_kept(
    site: Site, cache: Cas, mirrors: MakeMirrors, announce: int
) -> None:
    site.add(PIN, Reply(body=DATA, announce=announce, cut=10))
    with pytest.raises(BuildError, match=f"is {announce} bytes long, the pin says 3000000"):
        run([PIN], cache, mirrors())
    assert (cache.root / "partial" / PIN.sha256).stat().st_size == 0


def test_larger_than_pinned_without_a_length(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA + b"x", announce=None))
    with pytest.raises(BuildError, match="larger than the pinned 3000000 bytes"):
        run([PIN], cache, mirrors())
    assert not cache.path(PIN.sha256).exists()


def test_compressed_transfer_is_refused(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(BuildError, match="transfer encoding"):
        run([PIN], cache, mirrors())


def test_redirect_is_followed_but_not_to_a_file(site: Site, cache: Cas, mirrors: MakeMirrors, tmp_path: Path) -> None:
    site.add(PIN, Reply(status=302, headers={"Location": "/elsewhere/pool/main/thing.tar.xz"}))
    site.add(PIN, Reply(body=DATA), mirror="/elsewhere")
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    local = tmp_path / "local"
    other = content(100, 7)
    local.write_bytes(other)
    pin = pin_for(other, name="other")
    site.add(pin, Reply(status=302, headers={"Location": local.as_uri()}))
    with pytest.raises(BuildError, match="redirects to something that is neither http: nor https:"):
        run([pin], cache, mirrors())
    assert not in_cache(cache, other)


def test_redirect_without_end(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(status=302, headers={"Location": "/debian/pool/main/thing.tar.xz"}))
    with pytest.raises(BuildError, match="redirects without end"):
        run([PIN], cache, mirrors())


def test_nobody_listens(cache: Cas, site: Site, mirrors: MakeMirrors) -> None:
    dead = mirrors()
    site.close()
    with pytest.raises(BuildError, match="Connection refused"):
        run([PIN], cache, dead)


def test_stalled_for_ever(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA, cut=0, then="hang"))
    with pytest.raises(BuildError, match="stalled"):
        run([PIN], cache, mirrors())


def test_bundle_laid_out_like_a_cache(site: Site, cache: Cas, tmp_path: Path) -> None:
    bundle = Cas(root=tmp_path / "bundle")
    path = bundle.path(PIN.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    run([PIN], cache, lambda: Mirrors(mirrors=(Mirror(base=bundle.root.as_uri(), archive=None),)))
    assert in_cache(cache, DATA)
    # The same over HTTP, for a source that has no place in the archive.
    https = Pin(**{**vars(pin_for(b"abc")), "origin": Urls(urls=("https://127.0.0.1:1/gone",))})
    site.replies[f"/b/sha256/{https.sha256[:2]}/{https.sha256}"] = [Reply(body=b"abc")]
    run([https], cache, lambda: Mirrors(mirrors=(Mirror(base=f"{site.base}/b", archive=None),)))
    assert in_cache(cache, b"abc")


def test_local_file_of_the_checkout(cache: Cas, tmp_path: Path) -> None:
    (tmp_path / "in put").write_bytes(DATA)
    pin = replace(PIN, origin=LocalFile(path="in put"))
    run([pin], cache, no_mirrors, root=tmp_path)
    assert in_cache(cache, DATA)
    other = replace(pin_for(b"gone"), origin=LocalFile(path="gone"))
    with pytest.raises(BuildError, match="No such file"):
        run([other], cache, no_mirrors, root=tmp_path)


def test_corrupted_entry_is_fetched_again(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(PIN, Reply(body=DATA))
    run([PIN], cache, mirrors())
    path = cache.path(PIN.sha256)
    path.chmod(0o644)
    planted = bytearray(DATA)
    planted[1_000_000] ^= 1
    path.write_bytes(planted)
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert len(site.requests) == 2


def test_missing_setting_is_told_before_anything_is_fetched(site: Site, cache: Cas) -> None:
    other = pin_for(b"secure", name="secure", archive=Archive.SECURITY)
    site.add(PIN, Reply(body=DATA))
    with pytest.raises(UserError, match=r"no mirror of the debian-security archive .*SEV_ARTIFACTS_MIRROR"):
        run([other], cache, lambda: Mirrors(mirrors=()))
    with pytest.raises(UserError, match=r"no mirror of the debian archive .*SEV_ARTIFACTS_MIRROR"):
        run([PIN, other], cache, lambda: Mirrors(mirrors=(Mirror(base=site.base, archive=Archive.SECURITY),)))
    assert site.requests == []


def test_missing(site: Site, mirrors: MakeMirrors) -> None:
    gone, resized = pin_for(b"gone", name="gone"), pin_for(b"resized", name="resized")
    site.add(PIN, Reply(body=DATA))
    site.add(resized, Reply(body=b"other size"))
    fetch.refuse(fetch.missing([PIN], mirrors=mirrors()(), root=ROOT, limits=QUICK))
    assert site.requests[0].method == "HEAD"
    missing = fetch.missing([PIN, gone, resized], mirrors=mirrors()(), root=ROOT, limits=QUICK)
    assert [failure.pin for failure in missing] == [gone, resized]
    with pytest.raises(BuildError, match=r"gone.*404.*likewise resized"):
        fetch.refuse(missing)
