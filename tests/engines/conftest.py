# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a box, and in it dockerd, podman and containerd with the image and the built runtime."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import machine
from tests.engines.box import LIMIT, Box
from tests.engines.kit import CRUN, RUNC, Containerd, Docker, Podman, Runtime
from tests.launcher import terminal_kit
from tools.pipeline.tasks.project import Project


@pytest.fixture(scope="session")
def box(project: Project, artifacts: Path) -> Iterator[Box]:
    """A machine with all engines installed, and none started: Debian 13, or what `./doit test_engines` says."""
    with machine.opened(project, debian=os.environ.get("SEV_ENGINES_DEBIAN", "13")) as box:
        yield box


@pytest.fixture(scope="session")
def runtimes(box: Box) -> dict[str, Runtime]:
    """By name."""
    return machine.runtimes(box)


@pytest.fixture(scope="session")
def dockerd(box: Box, runtimes: dict[str, Runtime]) -> Docker:
    """A dockerd that has the image."""
    engine = Docker(box=box, runtime=RUNC, runtimes=tuple(runtimes.values())).start()
    engine.load(machine.image_of(box))
    return engine


@pytest.fixture(scope="session")
def podman_engine(box: Box, runtimes: dict[str, Runtime]) -> Podman:
    """A podman that has the image."""
    engine = Podman(box=box, runtime=CRUN, runtimes=tuple(runtimes.values())).start()
    engine.load(machine.image_of(box))
    return engine


@pytest.fixture(scope="session")
def containerd_engine(box: Box) -> Containerd:
    """A containerd that has the image."""
    engine = Containerd(box=box, runtime=RUNC).start()
    engine.load(machine.image_of(box))
    return engine


@pytest.fixture(scope="session", autouse=True)
def _nothing_else_hangs() -> None:
    """Programs in a box are started with a limit; a terminal's user waits as long."""
    terminal_kit._LIMIT = LIMIT
