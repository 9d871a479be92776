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
_UNPROTECTED = ("schema = 1", 'protection = "unprotected"')
_CONFIGURATIONS = {
    "sev-enforce": ("schema = 1", 'protection = "enforce"'),
    "sev-protected": ("schema = 1",),
    "sev-hang": (*_UNPROTECTED, "timeout = 20"),
    "sev-small": (*_UNPROTECTED, 'cache = "/run/small/cache"'),
}
"""All but the first of runtimes(): what stands in their sev-runtime.toml."""


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
def runtimes(box: Box) -> dict[str, Runtime]:
    """By name. runc and crun are the controls: each expectation holds with them, too.

    sev: in /etc, for engines that hand no options on. The others show that one program can be several runtimes.
    """
    found = {"runc": RUNC, "crun": CRUN, "sev": Runtime(name="sev", path=f"{OUT}/sev-runtime")}
    box.write("/etc/sev-runtime.toml", "".join(f"{line}\n" for line in _UNPROTECTED))
    for name, lines in _CONFIGURATIONS.items():
        path = f"/etc/sev/{name}.toml"
        box.write(path, "".join(f"{line}\n" for line in lines))
        found[name] = Runtime(name=name, path=f"{OUT}/sev-runtime", arguments=(f"--config={path}",))
    return found


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
