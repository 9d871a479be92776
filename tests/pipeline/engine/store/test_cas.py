# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The store believes no name and follows no link; only verified bytes get a final name."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.sources.test_partial import DATA, PIN, download
from tools.pipeline.base import files
from tools.pipeline.base.errors import SevArtifactsError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.merkle import Digest


def fill(cache: Cas) -> Path:
    download(cache)
    return cache.path(PIN.sha256)


def test_layout(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    path = fill(cache)
    assert path == tmp_path / "sha256" / PIN.sha256[:2] / PIN.sha256
    assert cache.verified(PIN.sha256, PIN.size)
    assert cache.read(PIN.sha256, PIN.size) == DATA
    assert list((tmp_path / "partial").iterdir()) == []


def test_absent(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path / "none")
    assert not cache.verified(PIN.sha256, PIN.size)
    assert not cache.has(PIN.sha256, PIN.size)
    assert cache.read(PIN.sha256, PIN.size) is None
    assert not cache.copy_to(PIN.sha256, PIN.size, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert list(cache.entries()) == []
    cache.remove(PIN.sha256)
    # Looking makes nothing.
    assert not cache.root.exists()


@pytest.mark.parametrize("change", ["none", "bit", "short", "long", "endless"])
def test_what_somebody_sends_is_kept_only_if_it_is_what_was_wanted(tmp_path: Path, change: str) -> None:
    cache, wanted = Cas(root=tmp_path), Digest.of(DATA)
    pieces = [DATA[:3], DATA[3:]]
    sent: dict[str, Iterable[bytes]] = {
        "none": pieces,
        "bit": [DATA[:-1], b"\0"],
        "short": pieces[:1],
        "long": [*pieces, b"\0"],
        "endless": itertools.cycle(pieces),
    }
    assert cache.put_expected(sent[change], wanted) == (change == "none")
    assert cache.verified(wanted.sha256, wanted.size) == (change == "none")
    assert len(list(cache.entries())) == (change == "none"), "nor under the name of what came"
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_file_is_opened_where_it_lies(tmp_path: Path) -> None:
    """Never what a link names, and never a file of another size."""
    cache = Cas(root=tmp_path / "cache")
    assert cache.open(PIN.sha256, PIN.size) is None
    path = fill(cache)
    file = cache.open(PIN.sha256, PIN.size)
    assert file is not None
    with file:
        assert file.read() == DATA
    assert cache.open(PIN.sha256, PIN.size + 1) is None
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    assert cache.open(PIN.sha256, PIN.size) is None
    path.unlink()
    os.mkfifo(path)
    assert cache.open(PIN.sha256, PIN.size) is None


@pytest.mark.parametrize("change", ["bit", "short", "long", "empty"])
@pytest.mark.parametrize("reader", ["verified", "read", "copy_to"])
def test_corrupted_entry_is_removed(tmp_path: Path, change: str, reader: str) -> None:
    cache = Cas(root=tmp_path)
    path = fill(cache)
    bad = {"bit": DATA[:-1] + b"\0", "short": DATA[:-1], "long": DATA + b"\0", "empty": b""}[change]
    path.chmod(0o644)
    path.write_bytes(bad)
    target = (tmp_path / "copy",) if reader == "copy_to" else ()
    assert not getattr(cache, reader)(PIN.sha256, PIN.size, *target)
    assert not path.exists()
    assert not (tmp_path / "copy").exists()
    assert fill(cache) == path


def test_put_and_copy(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path / "cache")
    source = tmp_path / "source"
    source.write_bytes(DATA)
    previous = os.umask(0o077)
    try:
        assert cache.put_bytes(DATA) == cache.put_file(source)
    finally:
        os.umask(previous)
    path = cache.path(PIN.sha256)
    assert oct(path.stat().st_mode) == "0o100444"
    assert {oct(p.stat().st_mode) for p in (path.parent, path.parents[1])} == {"0o40755"}
    assert cache.has(PIN.sha256, PIN.size)
    assert not cache.has(PIN.sha256, PIN.size + 1)
    assert cache.copy_to(PIN.sha256, PIN.size, tmp_path / "copy", mode=0o755)
    assert (tmp_path / "copy").read_bytes() == DATA
    assert oct((tmp_path / "copy").stat().st_mode) == "0o100755"
    # A private copy: no second name of the entry.
    assert path.stat().st_nlink == 1
    with pytest.raises(FileExistsError):
        cache.copy_to(PIN.sha256, PIN.size, tmp_path / "copy")
    assert [entry.sha256 for entry in cache.entries()] == [PIN.sha256]
    assert [entry.size for entry in cache.entries()] == [PIN.size]
    cache.remove(PIN.sha256)
    assert list(cache.entries()) == []


def test_a_wrong_entry_is_replaced_by_what_is_put(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    path = fill(cache)
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    cache.put_bytes(DATA)
    assert cache.read(PIN.sha256, PIN.size) == DATA


def test_use_is_remembered(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path)
    os.utime(fill(cache), (1, 1))
    assert next(cache.entries()).used == 1
    cache.verified(PIN.sha256, PIN.size)
    assert next(cache.entries()).used > 1


# Where an attacker may put something, and what must not be followed there.
PLACES = (
    "partial",
    f"partial/{PIN.sha256}",
    "sha256",
    f"sha256/{PIN.sha256[:2]}",
    f"sha256/{PIN.sha256[:2]}/{PIN.sha256}",
)


def _fill_by_put(cache: Cas) -> None:
    cache.put_bytes(DATA)


def _take(cache: Cas) -> None:
    cache.read(PIN.sha256, PIN.size)
    cache.verified(PIN.sha256, PIN.size)
    cache.remove(PIN.sha256)
    cache.sweep()


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A folder of the victim's, outside the cache; must be as it was when the test ends."""
    folder = tmp_path / "precious"
    for name in (PIN.sha256, f"{PIN.sha256[:2]}/{PIN.sha256}", f"new-{'0' * 32}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("untouched")
    before = {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in folder.rglob("*")}
    yield folder
    assert {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in folder.rglob("*")} == before
    assert {path.read_text() for path in folder.rglob("*") if path.is_file()} == {"untouched"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("act", [download, _fill_by_put, _take])
@pytest.mark.parametrize("kind", ["link to folder", "link to file", "second name", "fifo"])
def test_nothing_leads_out(tmp_path: Path, precious: Path, place: str, act: Callable[[Cas], None], kind: str) -> None:
    cache = Cas(root=tmp_path / "cache")
    planted = cache.root / place
    planted.parent.mkdir(parents=True)
    if kind == "link to folder":
        planted.symlink_to(precious)
    elif kind == "link to file":
        planted.symlink_to(precious / PIN.sha256)
    elif kind == "second name":
        planted.hardlink_to(precious / PIN.sha256)
    else:
        os.mkfifo(planted)
    # A folder's place is refused, by those who need that folder; a file's is taken for a file of our own.
    if len(place) < 64:
        with pytest.raises(SevArtifactsError, match=str(planted)):
            act(cache)
    else:
        act(cache)
        assert (cache.read(PIN.sha256, PIN.size) == DATA) is (act is not _take)


def test_a_link_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    cache = Cas(root=tmp_path / "cache")
    cache.root.mkdir()
    (cache.root / "sha256").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"/cache/sha256: is a link or a file where a folder must be; remove it"):
        cache.put_bytes(DATA)


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    """That is the user's own choice."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    cache = Cas(root=tmp_path / "cache")
    cache.put_bytes(DATA)
    assert cache.read(PIN.sha256, PIN.size) == DATA


PUTTING = """
import sys
from pathlib import Path
from tools.pipeline.engine.store.cas import Cas
def chunks():
    yield b"x" * 1000
    print("writing", flush=True)
    sys.stdin.read()
Cas(root=Path(sys.argv[1]))._put(chunks())
"""


def test_what_a_killed_run_left_is_swept_and_no_other(tmp_path: Path, repository: Path) -> None:
    cache = Cas(root=tmp_path)
    argv = [sys.executable, "-c", PUTTING, str(tmp_path)]
    with subprocess.Popen(argv, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        cache.sweep()
        assert len(list((tmp_path / "partial").iterdir())) == 1
        process.send_signal(signal.SIGKILL)
    cache.sweep()
    assert list((tmp_path / "partial").iterdir()) == []


FULL = """
import resource, signal, sys
from pathlib import Path
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
cache = Cas(root=Path(sys.argv[1]))
try:
    if len(sys.argv) > 2:
        cache.copy_to(sys.argv[2], 5000, Path(sys.argv[3]))
    else:
        cache.put_bytes(bytes(5000))
except BuildError as error:
    print(error)
"""


def test_a_full_disk_is_named(tmp_path: Path, repository: Path) -> None:
    argv = [sys.executable, "-c", FULL, str(tmp_path / "cache")]
    said = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{tmp_path}/cache/partial/new-")
    assert "no space left (File too large); free some space, or set SEV_ARTIFACTS_CACHE" in said
    assert list((tmp_path / "cache/partial").iterdir()) == []


def test_another_full_disk_than_the_caches_is_named(tmp_path: Path, repository: Path) -> None:
    """A checkout's: another cache would be of no use."""
    found = Cas(root=tmp_path / "cache").put_bytes(bytes(5000))
    target = tmp_path / "copy"
    argv = [sys.executable, "-c", FULL, str(tmp_path / "cache"), found.sha256, str(target)]
    said = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert said == f"{target}: no space left (File too large); free some space there\n"
    assert not target.exists()


def test_folders_that_others_can_change(tmp_path: Path) -> None:
    folder = tmp_path / "trees"
    folder.mkdir(mode=0o755)
    files.check_unshared(folder)
    folder.chmod(0o777)
    with pytest.raises(UserError, match=r"/trees: others can write there \(mode 777\).*chmod go-w"):
        files.check_unshared(folder)
    folder.chmod(0o1777)
    files.check_unshared(folder, sticky=True)
    with pytest.raises(UserError, match="others can write there"):
        files.check_unshared(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="is no folder"):
        files.check_unshared(tmp_path / "link")
