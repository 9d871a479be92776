# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What strangers ran into: hostile redirects, proxies, odd servers, passwords in URLs, no security archive."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline.sources.fetching.test_fetch import DATA, PIN, ROOT, MakeMirrors, in_cache, run
from tests.pipeline.sources.loopback import Reply, Site, pin_for
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources import fetch, mirrors
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.pins import Archive, PoolFile, Urls
from tools.sev.errors import mask

FIX = replace(pin_for(b"a fix", archive=Archive.SECURITY), name="fix")


@pytest.mark.parametrize(
    "target", ["http://[::1/debian", "http://h:99999/x", "http://h:port/x", "http://" + "a" * 70 + ".b/x", "http://.x/"]
)
def test_redirect_to_an_invalid_url(site: Site, cache: Cas, mirrors: MakeMirrors, target: str) -> None:
    site.add(PIN, Reply(status=302, headers={"Location": target}))
    with pytest.raises(BuildError, match=r"thing\.tar\.xz: redirects to an invalid URL") as caught:
        run([PIN], cache, mirrors())
    assert "\n" not in str(caught.value)
    assert "redirects to an invalid URL" in fetch.missing([PIN], mirrors=mirrors()(), root=ROOT)[0].answers[0][1]
    with pytest.raises(BuildError, match="redirects to an invalid URL"):
        fetch.look(PIN, mirrors=mirrors()(), root=ROOT)
    # The next mirror has it.
    site.add(PIN, Reply(body=DATA), mirror="/good")
    run([PIN], cache, mirrors("/debian", "/good"))
    assert in_cache(cache, DATA)


def test_resume_that_is_answered_with_200_and_a_range(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    rest = Reply(
        body=DATA[500_000:], ranges=False, headers={"Content-Range": f"bytes 500000-{len(DATA) - 1}/{len(DATA)}"}
    )
    site.add(PIN, Reply(body=DATA, cut=500_000), rest, Reply(body=DATA, ranges=False))
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert [r.range for r in site.requests] == [None, "bytes=500000-", None]


def test_resume_that_is_answered_with_another_length(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    site.add(
        PIN, Reply(body=DATA, cut=500_000), Reply(body=DATA[500_000:], ranges=False), Reply(body=DATA, ranges=False)
    )
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert [r.range for r in site.requests] == [None, "bytes=500000-", None]


def test_password_of_a_mirror_is_not_shown(site: Site, cache: Cas) -> None:
    base = site.base.replace("://", "://user:s3cret@")
    known = Mirrors(mirrors=(Mirror(base=f"{base}/debian", archive=Archive.DEBIAN),))
    with pytest.raises(BuildError, match=r"://\*\*\*@127\.0\.0\.1:\d+/debian/pool/main/thing\.tar\.xz: 404") as caught:
        run([PIN], cache, lambda: known)
    assert "s3cret" not in str(caught.value)
    site.add(PIN, Reply(body=DATA))
    run([PIN], cache, lambda: known)
    assert in_cache(cache, DATA)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Failed to fetch http://u:p@h/debian/x  404", "Failed to fetch http://***@h/debian/x  404"),
        ("('https://u:p%40q@h:1/x')", "('https://***@h:1/x')"),
        ("http://u:p@q@h/x and http://v@h", "http://***@h/x and http://***@h"),
        ("socks5h://u:p@h:1080", "socks5h://***@h:1080"),
        ("http://h/a@b and mail@example.org", "http://h/a@b and mail@example.org"),
    ],
)
def test_mask(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert str(UserError(text, where=text, hint=text)) == f"{shown}: {shown}; {shown}"


@pytest.mark.parametrize(
    "setting",
    [
        "http_proxy=socks5h://u:s3cret@h:1080",
        "HTTP_PROXY=http://h:99999",
        "all_proxy=socks5://h",
        "http_proxy=http://[::1",
        "http_proxy=http://",
        "all_proxy=ftp://h",
    ],
)
def test_proxy_that_cannot_be_used(
    site: Site, cache: Cas, mirrors: MakeMirrors, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    variable, _, value = setting.partition("=")
    site.add(PIN, Reply(body=DATA))
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        UserError, match=rf"^{variable}: .* is no proxy that can be used; supported are http://HOST:PORT"
    ) as e:
        run([PIN], cache, mirrors())
    assert "s3cret" not in str(e.value)
    assert site.requests == []
    with pytest.raises(UserError, match="is no proxy"):
        fetch.missing([PIN], mirrors=mirrors()(), root=ROOT)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)


def test_proxy_that_works(site: Site, cache: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.base)
    site.replies["http://mirror.invalid/debian/pool/main/thing.tar.xz"] = [Reply(body=DATA)]
    run([PIN], cache, lambda: mirrors.from_setting(["http://mirror.invalid/debian"]))
    assert in_cache(cache, DATA)


def test_proxy_that_refuses_connect_is_named(site: Site, cache: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", site.base.replace("://", "://u:s3cret@"))
    pin = replace(PIN, origin=Urls(urls=("https://upstream.invalid/x",)))
    with pytest.raises(
        BuildError, match=r"the proxy refused: 501 .* \(through https_proxy=http://\*\*\*@127\.0\.0\.1:"
    ) as e:
        run([pin], cache, lambda: Mirrors(mirrors=()))
    assert "s3cret" not in str(e.value)


def test_proxy_that_is_not_there_is_named(site: Site, cache: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.base)
    site.close()
    with pytest.raises(BuildError, match=r"Connection refused \(through http_proxy=http://127\.0\.0\.1:"):
        run([PIN], cache, lambda: mirrors.from_setting(["http://mirror.invalid/debian"]))


def test_look_at_what_nobody_has_hashed(site: Site) -> None:
    pin = replace(PIN, sha256="0" * 64, size=1, origin=Urls(urls=(f"{site.base}/a", f"{site.base}/b")))
    bundle = Mirrors(mirrors=(Mirror(base=f"{site.base}/bundle", archive=None),))
    site.replies["/b"] = [Reply(body=DATA)]
    found = fetch.look(pin, mirrors=bundle, root=ROOT)
    assert (found.sha256, found.size) == (PIN.sha256, PIN.size)
    site.replies["/b"] = [Reply(body=DATA, cut=1000)]
    with pytest.raises(BuildError, match=r"/a: 404 Not Found; .*/b: the connection ended early") as caught:
        fetch.look(pin, mirrors=bundle, root=ROOT)
    assert "bundle" not in str(caught.value)


def minimal(site: Site, folder: Path) -> Mirrors:
    """The mirrors of a machine whose apt knows no security archive."""
    (folder / "sources.list").write_text(f"deb {site.base}/debian trixie main\n")
    return mirrors.discover([], apt=folder)


def test_security_archive_beside_the_main_one(site: Site, cache: Cas, tmp_path: Path) -> None:
    site.add(FIX, Reply(body=b"a fix"), mirror="/debian-security")
    run([FIX], cache, lambda: minimal(site, tmp_path))
    assert in_cache(cache, b"a fix")
    assert [r.path for r in site.requests] == ["/debian-security/pool/main/thing.tar.xz"]


def test_fix_that_a_point_release_has_moved(site: Site, cache: Cas, tmp_path: Path) -> None:
    origin = PoolFile(archive=Archive.SECURITY, path="pool/updates/main/thing.tar.xz")
    site.add(FIX, Reply(body=b"a fix"))
    run([replace(FIX, origin=origin)], cache, lambda: minimal(site, tmp_path))
    assert in_cache(cache, b"a fix")
    assert [r.path for r in site.requests] == [
        "/debian-security/pool/updates/main/thing.tar.xz",
        "/debian/pool/main/thing.tar.xz",
    ]


def test_fix_that_is_nowhere_says_what_was_tried(site: Site, cache: Cas, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        run([FIX], cache, lambda: minimal(site, tmp_path))
    for place in ("debian-security", "debian"):
        assert f"{site.base}/{place}/pool/main/thing.tar.xz: 404 Not Found" in str(caught.value)
