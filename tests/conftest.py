# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures for everything: the checkout, its tool trees, QEMU from the pinned tree, the built artifacts.

`./doit test` builds what they need first; a bare pytest run says what to build.
"""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.attack.base.host_tools import HostTools
from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.pipeline.engine.tree import Tree
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.tasks.commands import matrix
from tools.pipeline.tasks.project import Project


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> None:
    """A run in the background ignores signals that tests send, and what tests start would inherit that."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            # Not the default action, which would end this run; a handler becomes the default in a child.
            signal.signal(number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--series: run on the artifacts of another kernel series, as ./doit test_series does."""
    parser.addoption("--series", default="", help="the kernel series whose artifacts are tested (default: out/)")


@pytest.fixture(scope="session")
def of_series(project: Project, request: pytest.FixtureRequest) -> Callable[[str], Profile]:
    """The profile of that name in the series that is tested."""
    series = request.config.getoption("--series") or project.recipes.profile(DEFAULT_PROFILE).series
    found = {profile.recipe: profile for profile in matrix.check_series(project, str(series))}
    return lambda name: found[name]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout under test."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project(repository: Path) -> Project:
    """Its recipes and locks; caches and seal are the run's.

    They are looked for once, when they are first needed: in a test that has set another cache for itself, every later
    one would get that.
    """
    found = Project.load(repository)
    _ = found.engine
    return found


@pytest.fixture(scope="session")
def build_tree(project: Project) -> Tree:
    """Compilers and build tools."""
    return project.trees.ensure("build")


@pytest.fixture(scope="session")
def boot_tree(project: Project) -> Tree:
    """QEMU, erofs-utils, veritysetup, busybox, strace."""
    return project.trees.ensure("boot")


@pytest.fixture(scope="session")
def repro_tree(project: Project) -> Path:
    """What the reproducibility check's other environment is made of."""
    return project.trees.ensure("repro").path


@pytest.fixture(scope="session")
def host_tool(boot_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Wrappers that run a program of the pinned boot tree, or another, on host files: host_tool("mkfs.erofs")."""
    tools = HostTools(folder=tmp_path_factory.mktemp("host-tools"))
    return lambda name, pinned=boot_tree: tools.wrapper(name, pinned)


@pytest.fixture(scope="session")
def qemu(host_tool: Callable[[str], Path]) -> Path:
    """QEMU 10 from the pinned tree, as an executable file."""
    return host_tool("qemu-system-x86_64")


def _artifacts(project: Project, profile: Profile) -> Path:
    folder = project.out(profile)
    if not (folder / "runtime.toml").is_file():
        pytest.fail(f"{folder.name}/ is not built; run: ./doit artifacts:{profile.name}", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def artifacts(project: Project, of_series: Callable[[str], Profile]) -> Path:
    """The production artifacts."""
    return _artifacts(project, of_series("production"))


@pytest.fixture(scope="session")
def lab(project: Project, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """What attacks are given, for the production artifacts."""
    own = Target(name="shipped", folder=artifacts)
    return Lab(project=project, own=own, work=tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def debug_artifacts(project: Project, of_series: Callable[[str], Profile]) -> Path:
    """The debug artifacts: kernel log on the serial console, debugfs."""
    return _artifacts(project, of_series("debug"))


@pytest.fixture(scope="session")
def kata_artifacts(project: Project, of_series: Callable[[str], Profile]) -> Path:
    """The artifacts for Kata Containers: the only ones with drop-ins, and so with a folder in their folder."""
    return _artifacts(project, of_series("kata"))


@pytest.fixture(scope="session")
def firmware_path(artifacts: Path) -> Path:
    """The built OVMF.fd."""
    return artifacts / "OVMF.fd"


@pytest.fixture(scope="session")
def busybox(boot_tree: Tree) -> Path:
    """The static busybox of the pinned tree, for making container roots."""
    return boot_tree.path / "usr/bin/busybox"


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder into which everybody may go; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
