# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the fetch tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.sources.loopback import Site
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.pins import Archive


@pytest.fixture
def site() -> Iterator[Site]:
    """A fresh server for a test."""
    server = Site()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path) -> Cas:
    """An empty cache."""
    return Cas(root=tmp_path / "cache")


@pytest.fixture
def mirrors(site: Site) -> Callable[..., Callable[[], Mirrors]]:
    """Mirrors of the Debian archive at these paths of the server."""

    def make(*paths: str) -> Callable[[], Mirrors]:
        entries = tuple(Mirror(base=f"{site.base}{path}", archive=Archive.DEBIAN) for path in paths or ("/debian",))
        return lambda: Mirrors(mirrors=entries)

    return make
