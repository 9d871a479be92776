# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fetching in several processes at once, killed ones, and on full disks."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.pipeline.sources.fetching.test_fetch import DATA, PIN, ROOT, MakeMirrors, in_cache, names, run
from tests.pipeline.sources.loopback import Reply, Site, content, pin_for
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources.pins import Pin, PoolFile

# What only shows between processes: a small program that fetches one pin.

CHILD = """
import json, resource, sys
from pathlib import Path
from tools.pipeline.sources import fetch
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources.transport import Limits
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.sources.pins import Archive, Pin, PoolFile
from tools.pipeline.sources.mirrors import Mirror, Mirrors
order = json.loads(sys.argv[1])
if order["file_limit"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
origin = PoolFile(archive=Archive.DEBIAN, path=order["path"])
pin = Pin(name="thing", version="1", sha256=order["sha256"], size=order["size"], origin=origin, lock="x.lock")
mirrors = Mirrors(mirrors=(Mirror(base=order["base"], archive=Archive.DEBIAN),))
try:
    fetch.ensure([pin], cache=Cas(root=Path(order["cache"])), mirrors=lambda: mirrors, root=Path("/"),
                 limits=Limits(first_pause=0.01, stall=30.0))
except SevArtifactsError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def child(
    site: Site, cache: Path, pin: Pin, *, wrapper: tuple[str, ...] = (), limit: int = 0
) -> "subprocess.Popen[str]":
    assert isinstance(pin.origin, PoolFile)
    order = {
        "path": pin.origin.path,
        "sha256": pin.sha256,
        "size": pin.size,
        "base": f"{site.base}/debian",
        "cache": str(cache),
        "file_limit": limit,
    }
    argv = [*wrapper, sys.executable, "-c", CHILD, json.dumps(order)]
    # The child finds what this process finds, in a virtual environment or without one.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def test_killed_then_resumed(site: Site, cache: Cas, mirrors: MakeMirrors) -> None:
    cut = 2_000_000
    site.add(PIN, Reply(body=DATA, cut=cut, then="hang"), Reply(body=DATA))
    process = child(site, cache.root, PIN)
    partial = cache.root / "partial" / PIN.sha256
    ticks = threading.Event()
    for _ in range(2000):
        if partial.exists() and partial.stat().st_size == cut:
            break
        ticks.wait(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout is not None
    process.stdout.close()
    assert not cache.path(PIN.sha256).exists()
    run([PIN], cache, mirrors())
    assert in_cache(cache, DATA)
    assert site.requests[1].range == f"bytes={cut}-"
    assert site.requests[1].sent == len(DATA) - cut


def test_concurrent_fetchers_share_one_download(site: Site, cache: Cas) -> None:
    data = content(20_000_000, 3)
    pin = pin_for(data)
    site.add(pin, Reply(body=data))
    processes = [child(site, cache.root, pin) for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert in_cache(cache, data)
    assert [r.range for r in site.requests] == [None]
    assert names(cache.root / "partial") == []


def test_waiting_for_another_process_that_is_killed(site: Site, cache: Cas) -> None:
    site.add(PIN, Reply(body=DATA, cut=1_000_000, then="hang"), Reply(body=DATA))
    first = child(site, cache.root, PIN)
    assert site.cut_reached.wait(20)
    second = child(site, cache.root, PIN)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1.5)
    first.kill()
    assert second.communicate()[0] == ""
    first.communicate()
    assert second.returncode == 0
    assert in_cache(cache, DATA)


def test_disk_full(site: Site, tmp_path: Path) -> None:
    """A real ENOSPC, for an ordinary user too: a tmpfs of 1 MiB in a mount namespace of its own."""
    bwrap = shutil.which("bwrap")
    assert bwrap is not None, "bubblewrap is what the builds run in"
    small = tmp_path / "small"
    small.mkdir()
    site.add(PIN, Reply(body=DATA))
    process = child(
        site,
        small / "cache",
        PIN,
        wrapper=(bwrap, "--dev-bind", "/", "/", "--size", "1048576", "--tmpfs", str(small)),
    )
    said = process.communicate()[0]
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert "no space left (No space left on device)" in said
    assert str(small / "cache") in said
    assert "SEV_ARTIFACTS_CACHE" in said
    # Positive control: the same with room enough.
    roomy = (bwrap, "--dev-bind", "/", "/", "--size", "16777216", "--tmpfs", str(small))
    process = child(site, small / "cache", PIN, wrapper=roomy)
    assert process.communicate()[0] == ""
    assert process.returncode == 0


def test_file_size_limit(site: Site, cache: Cas) -> None:
    site.add(PIN, Reply(body=DATA))
    process = child(site, cache.root, PIN, limit=1_000_000)
    said = process.communicate()[0]
    assert process.returncode == 1
    assert "no space left (File too large)" in said
    # What fitted is kept and continued.
    process = child(site, cache.root, PIN, limit=resource.RLIM_INFINITY)
    assert process.communicate()[0] == ""
    assert site.requests[-1].range == "bytes=1000000-"
    assert in_cache(cache, DATA)


def test_cache_that_cannot_be_written(site: Site, tmp_path: Path, mirrors: MakeMirrors) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(BuildError, match=r"cannot be .*SEV_ARTIFACTS_CACHE"):
        run([PIN], Cas(root=blocked / "cache"), mirrors())
