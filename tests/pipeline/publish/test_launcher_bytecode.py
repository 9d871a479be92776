# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher as the build packs it: bytecode of the sources beside it, used by the Pythons that it fits."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.pipeline import alone
from tools.pipeline.base.errors import BuildError
from tools.pipeline.publish import launcher
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount
from tools.pipeline.tasks.project import Project

PYTHONS = {"python3": "cpython-313", "python3.11": "cpython-311"}
# Not the packer's own words: what the bytecode of the sources is, computed again.
AGAIN = """
import hashlib, marshal, sys
digest = hashlib.sha256()
for name in sys.argv[1:]:
    text = open("/src/" + name, "rb").read()
    digest.update(marshal.dumps(compile(text, name, "exec", dont_inherit=True, optimize=0), 2))
print(digest.hexdigest(), sys.implementation.cache_tag)
"""


@pytest.fixture(scope="module")
def packed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """By the step itself, in the sandbox."""
    folder = tmp_path_factory.mktemp("packed")
    return alone.output(alone.engine(project, folder), launcher.step(project.root), launcher.NAME)


def inside(project: Project, mount: Mount, *argv: str) -> str:
    command = Command(argv=argv, tree=project.trees.ensure("python").path, mounts=(mount,))
    return sandbox.output_of(command).decode()


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_bytecode_is_of_the_sources_beside_it(project: Project, packed: bytes, tmp_path: Path, python: str) -> None:
    file = tmp_path / "sev-launch"
    file.write_bytes(packed)
    found = members(file)
    names = [name for name in found if name.startswith("tools/")]
    for name in names:
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(found[name])
    said = inside(project, Mount(host=tmp_path / "src", inside="/src"), python, "-I", "-c", AGAIN, *names).split()
    assert said == [hashlib.sha256(found[f"bytecode/{PYTHONS[python]}.bin"]).hexdigest(), PYTHONS[python]]


def test_the_same_bytes_again(project: Project, packed: bytes, tmp_path: Path) -> None:
    assert alone.output(alone.engine(project, tmp_path), launcher.step(project.root), launcher.NAME) == packed


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_takes_its_own(project: Project, packed: bytes, tmp_path: Path, python: str) -> None:
    """What another would take may be spoilt, and the sources; its own may not."""
    file = tmp_path / "sev-launch"

    def answer(*spoilt: str) -> str:
        """What `policy` says when those members are not what they were; the offsets stay."""
        file.write_bytes(packed)
        with zipfile.ZipFile(file) as archive:
            places = [(info.header_offset + 30 + len(info.filename), info) for info in archive.infolist()]
        assert {info.filename for _, info in places if info.filename.startswith(spoilt)}, "they are there"
        with file.open("r+b") as stream:
            for at, info in places:
                if info.filename.startswith(spoilt):
                    stream.seek(at)
                    stream.write(b"?" * info.file_size)
        file.chmod(0o755)
        script = f"ln -s /usr/bin/{python} /tmp/python3 && PATH=/tmp:$PATH exec /run/sev-launch policy smt=true"
        return inside(project, Mount(host=tmp_path, inside="/run"), "/bin/sh", "-euc", script)

    own = f"bytecode/{PYTHONS[python]}"
    others = [f"bytecode/{tag}" for tag in PYTHONS.values() if tag != PYTHONS[python]]
    assert answer("tools/", *others) == "0x30000\n"
    with pytest.raises(BuildError, match="marshal"):
        answer(own)
