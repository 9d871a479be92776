# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a box, and in it dockerd, podman and containerd with the image and the built runtime."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import images
from tests.engines.box import LIMIT, Box
from tests.engines.kit import CRUN, RUNC, Containerd, Docker, Podman, Runtime
from tests.launcher import terminal_kit
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project

OUT = "/opt/sev-artifacts"


@pytest.fixture(scope="session")
def engines_tree(project: Project) -> Tree:
    """docker, podman, containerd, and what they start."""
    return project.trees.ensure("engines")


@pytest.fixture(scope="session")
def box(engines_tree: Tree, boot_tree: Tree, artifacts: Path, busybox: Path) -> Iterator[Box]:
    """A machine with all engines installed, and none started."""
    box = Box(trees=[engines_tree.path, boot_tree.path], shown={artifacts: OUT})
    try:
        box.start()
        images.archive(box.share / "image.tar", busybox)
        yield box
    finally:
        box.stop()


@pytest.fixture(scope="session")
def runtimes() -> dict[str, Runtime]:
    """By name. runc and crun are the controls: each expectation holds with them, too."""
    return {"runc": RUNC, "crun": CRUN}


@pytest.fixture(scope="session")
def dockerd(box: Box, runtimes: dict[str, Runtime]) -> Docker:
    """A dockerd that has the image."""
    engine = Docker(box=box, runtime=RUNC, runtimes=tuple(runtimes.values())).start()
    engine.load(box.share / "image.tar")
    return engine


@pytest.fixture(scope="session")
def podman_engine(box: Box, runtimes: dict[str, Runtime]) -> Podman:
    """A podman that has the image."""
    engine = Podman(box=box, runtime=CRUN, runtimes=tuple(runtimes.values())).start()
    engine.load(box.share / "image.tar")
    return engine


@pytest.fixture(scope="session")
def containerd_engine(box: Box) -> Containerd:
    """A containerd that has the image."""
    engine = Containerd(box=box, runtime=RUNC).start()
    engine.load(box.share / "image.tar")
    return engine


@pytest.fixture(scope="session", autouse=True)
def _nothing_else_hangs() -> None:
    """Programs in a box are started with a limit; a terminal's user waits as long."""
    terminal_kit._LIMIT = LIMIT
