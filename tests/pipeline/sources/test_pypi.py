# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Wheels through the real pip, from an index on loopback that only pip's own configuration names."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline.sources.fetching.test_fetch import ROOT, in_cache, names, run
from tests.pipeline.sources.loopback import Reply, Site
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources import pypi
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.pins import Pin, Wheel

FILE = "tiny_thing-1.0-py3-none-any.whl"
WHEEL = Wheel(package="tiny-thing", version="1.0", file=FILE)


def wheel(version: str = "1.0", *, needs: str = "Requires-Dist: absent\n") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        info = f"tiny_thing-{version}.dist-info"
        archive.writestr("tiny_thing.py", "raise SystemExit('was run')\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-thing\nVersion: {version}\n{needs}")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return data.getvalue()


DATA = wheel()
PIN = Pin(
    name="tiny",
    version="1.0",
    sha256=hashlib.sha256(DATA).hexdigest(),
    size=len(DATA),
    origin=WHEEL,
    lock="recipes/sources.lock",
)


@pytest.fixture
def index(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A package index that has the wheel, and a pip that knows only this index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.base.replace('://', '://user:s3cret@')}/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    site.replies["/simple/tiny-thing/"] = [
        Reply(body=f'<a href="/files/{FILE}">{FILE}</a>'.encode(), headers={"Content-Type": "text/html"})
    ]
    site.replies[f"/files/{FILE}"] = [Reply(body=DATA)]
    return site


def nothing() -> Mirrors:
    return Mirrors(mirrors=())


def test_from_pips_own_index_and_nothing_is_left(index: Site, cache: Cas, tmp_path: Path) -> None:
    run([PIN], cache, nothing)
    assert in_cache(cache, DATA)
    assert names(tmp_path / "tmp") == []
    asked = len(index.requests)
    run([PIN], cache, nothing)
    assert len(index.requests) == asked


def test_from_a_bundle_without_pip(index: Site, cache: Cas) -> None:
    index.replies[f"/b/sha256/{PIN.sha256[:2]}/{PIN.sha256}"] = [Reply(body=DATA)]
    run([PIN], cache, lambda: Mirrors(mirrors=(Mirror(base=f"{index.base}/b", archive=None),)))
    assert in_cache(cache, DATA)
    assert len(index.requests) == 1


def test_other_bytes_are_refused_in_one_line_without_the_password(index: Site, cache: Cas) -> None:
    index.replies[f"/files/{FILE}"] = [Reply(body=wheel("1.0.0"))]
    with pytest.raises(
        BuildError, match=r"sources\.lock: tiny: 1\.0 .*Tried pip:tiny-thing==1\.0: pip download: "
    ) as e:
        run([PIN], cache, nothing)
    assert "\n" not in str(e.value)
    assert "s3cret" not in str(e.value)
    assert names(cache.root / "sha256") in ([], [PIN.sha256[:2]])
    assert not in_cache(cache, DATA)


def test_what_the_index_does_not_have(index: Site, tmp_path: Path) -> None:
    other = Wheel(package="tiny-thing", version="2.0", file="tiny_thing-2.0-py3-none-any.whl")
    with pytest.raises(BuildError, match=r"pip download: .*tiny-thing==2\.0") as caught:
        pypi.download(other, tmp_path)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(BuildError, match=rf"the index has {FILE}, not tiny_thing-1\.0-py2"):
        pypi.download(replace(WHEEL, file="tiny_thing-1.0-py2.py3-none-any.whl"), tmp_path)


def test_no_place_for_temporary_files_is_named(
    index: Site, cache: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(BuildError, match=r"temporary folder .*/absent/.*: No such file or directory; set TMPDIR"):
        run([PIN], cache, nothing, root=ROOT)
