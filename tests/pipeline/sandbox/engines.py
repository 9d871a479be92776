# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit test_containers`: a build step in real containers, of docker and podman, whichever are installed.

No test_ in this file's name: `./doit test` leaves it out, as nobody needs an engine for it. Each container is the
pinned repro tree (Python, bubblewrap) with nothing else; options are those that the refusal itself advises.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import obstacles

_PLACES = {"docker": "a docker container", "podman": "a podman container"}
ENGINES = [name for name in _PLACES if shutil.which(name)]
ROOT, OTHER = (), ("--user", "1234")
USERS = {"root": ROOT, "other": OTHER}

STEP = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, "/checkout")
from tools.pipeline.base.errors import UserError
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount
try:
    sandbox.available()
except UserError as error:
    print(error)
    sys.exit(2)
folder = Path(tempfile.mkdtemp())
mounts = (Mount(host=folder, inside="/build", writable=True),)
script = 'echo "int main(void) { return 7; }" >t.c; gcc -o t t.c; ./t || echo $? $(id -u) $(ls -d /proc/[0-9]* | wc -l)'
command = Command(argv=("sh", "-uc", script), tree=Path("/tree"), mounts=mounts)
print(sandbox.output_of(command).decode(), end="")
"""


@dataclass(frozen=True)
class Engine:
    """One that is installed, and an image in it."""

    name: str
    image: str
    mounts: tuple[str, ...]

    def run(self, *options: str) -> tuple[int, str]:
        """Exit status and output of STEP in a container with these options."""
        argv = [self.name, "run", "--rm", "--network", "none", *self.mounts, *options, self.image]
        done = subprocess.run(
            [*argv, "/usr/bin/python3", "-c", STEP], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stderr == "", "the engine itself failed"
        return done.returncode, done.stdout


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest,
    repository: Path,
    repro_tree: Path,
    build_tree: Tree,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    name = request.param
    skeleton = tmp_path_factory.mktemp(name) / "skeleton.tar"
    with tarfile.open(skeleton, "w") as tar:
        for folder in ("usr", "etc", "proc", "sys", "dev", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for link in ("bin", "lib", "lib64", "sbin"):
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
    folders = {repro_tree / "usr": "/usr", build_tree.path: "/tree", repository: "/checkout"}
    image = "localhost/sev-artifacts-test:1"
    subprocess.run([name, "import", skeleton, image], check=True, capture_output=True)
    yield Engine(name, image, tuple(f"--volume={host}:{inside}:ro" for host, inside in folders.items()))
    subprocess.run([name, "rmi", image], check=True, capture_output=True)


def advised(engine: Engine) -> tuple[str, ...]:
    """The options that are advised, from the text of the advice."""
    place = next(place for place in obstacles.PLACES if place.name == _PLACES[engine.name])
    return tuple(place.remedy.partition(f"{engine.name} run ")[2].split())


def test_an_engine_is_installed() -> None:
    assert ENGINES, "there is none to test with: apt-get install podman, or docker.io"


@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
def test_the_advice_is_given_and_helps(engine: Engine, user: tuple[str, ...]) -> None:
    status, said = engine.run(*user)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"bubblewrap cannot make a sandbox in {_PLACES[engine.name]} (")
    options = advised(engine)
    assert said.endswith(f"; start it with {engine.name} run {' '.join(options)}\n")
    # The compiler ran, as another user, and sees the step's processes alone.
    status, said = engine.run(*user, *options)
    assert (status, said.split()[:2]) == (0, ["7", "1000"])
    assert int(said.split()[2]) < 10


@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
def test_each_option_is_needed(engine: Engine, user: tuple[str, ...]) -> None:
    """But for those that speak to AppArmor and SELinux, which are not everywhere."""
    options = [f"--security-opt={word}" for word in advised(engine) if "=" in word]
    for needed in [word for word in options if "apparmor=" not in word and "label=" not in word]:
        status, said = engine.run(*user, *(word for word in options if word != needed))
        assert (status, "cannot make a sandbox" in said) == (2, True), needed


@pytest.mark.parametrize("more", ["--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--security-opt=no-new-privileges"])
def test_more_or_less_than_advised(engine: Engine, more: str) -> None:
    assert engine.run(*advised(engine), more)[0] == 0


def test_a_root_that_lacks_capabilities(engine: Engine) -> None:
    options = (*advised(engine), "--cap-drop=ALL")
    status, said = engine.run(*options)
    assert status == 2
    assert said.endswith(" or with the capabilities that root lacks: SETGID, SETUID, SETFCAP\n")
    assert engine.run(*options, *OTHER)[0] == 0
    assert engine.run(*options, "--cap-add=SETGID", "--cap-add=SETUID", "--cap-add=SETFCAP")[0] == 0
