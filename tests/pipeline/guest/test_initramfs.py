# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest, the list that it becomes, and the newc bytes that the kernel's own program makes of that.

`made` compiles gen_init_cpio of the pinned kernel source in the sandbox, as the build does.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.guest import boxed
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.tree import Tree
from tools.pipeline.guest import initramfs
from tools.pipeline.guest.initramfs import Manifest
from tools.pipeline.sandbox.sandbox import EPOCH
from tools.pipeline.tasks.project import Project

MANIFEST = """
schema = 2
budget = 1000
[[entry]]
path = "usr/lib/data"
type = "file"
mode = "0640"
file = "data/file.txt"
[[entry]]
path = "usr"
type = "dir"
mode = "0755"
[[entry]]
path = "usr/lib"
type = "dir"
mode = "0711"
[[entry]]
path = "init"
type = "file"
mode = "0755"
artifact = "agent"
[[entry]]
path = "usr/link"
type = "link"
target = "lib/data"
[[entry]]
path = "usr-x"
type = "dir"
mode = "01777"
[[entry]]
path = "console"
type = "char"
mode = "0600"
major = 5
minor = 1
"""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One newc header with its data; the names are those of the kernel's buffer-format.rst."""

    name: str
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime: int
    dev: tuple[int, int]
    rdev: tuple[int, int]
    data: bytes


def newc(archive: bytes) -> Iterator[Member]:
    """Documentation/driver-api/early-userspace/buffer-format.rst; the trailer must come, then zeros."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        f = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size, check = f[6], f[11], f[12]
        assert check == 0
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        begin = (at + 110 + name_size + 3) & ~3
        data = archive[begin : begin + size]
        assert len(data) == size
        at = (begin + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not archive[at:].strip(b"\0")
            return
        yield Member(
            name=name[:-1].decode(),
            ino=f[0],
            mode=f[1],
            uid=f[2],
            gid=f[3],
            nlink=f[4],
            mtime=f[5],
            dev=(f[7], f[8]),
            rdev=(f[9], f[10]),
            data=data,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An initramfs/ folder with the manifest above and its source."""
    root = tmp_path / "initramfs"
    (root / "data").mkdir(parents=True)
    (root / "data/file.txt").write_bytes(b"content of the file\n")
    (root / "manifest.toml").write_text(MANIFEST)
    (tmp_path / "agent").write_bytes(b"\x7fELF" + b"\0" * 100)
    return root


def load(folder: Path) -> Manifest:
    return initramfs.load(folder / "manifest.toml", artifacts=["agent"])


Pack = Callable[[Path], Path]


@pytest.fixture(scope="session")
def packer(project: Project, build_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gen_init_cpio.c of the pinned kernel source."""
    out = tmp_path_factory.mktemp("gen_init_cpio")
    name = project.recipes.profile("production").kernel.source
    (pin,) = (source.pin for source in project.sources if source.pin.name == name)
    unpack = "tar --extract --file=/inputs/source --to-stdout --occurrence=1 --wildcards '*/usr/gen_init_cpio.c'"
    run(build_tree, f"{unpack} >/out/packer.c", {"/inputs/source": project.cas.path(pin.sha256)}, out)
    return out / "packer.c"


@pytest.fixture
def pack(packer: Path, build_tree: Tree, tmp_path: Path) -> Pack:
    """pack(folder): a new folder with initramfs.cpio and initramfs.cpio.zst, made as the build makes them."""

    def make(folder: Path) -> Path:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        listed = load(folder)
        (tmp_path / "list").write_text(initramfs.listing(listed))
        contents = {inside: folder / name for inside, name in listed.files().items()}
        contents |= {inside: folder.parent / name for inside, name in listed.artifacts().items()}
        run(build_tree, initramfs.PACK, {initramfs.PACKER: packer, initramfs.LIST: tmp_path / "list", **contents}, out)
        return out

    return make


def run(tree: Tree, script: str, inputs: dict[str, Path], out: Path) -> str:
    """Run a script of the build in the sandbox; its standard output."""
    with tempfile.TemporaryDirectory() as build:
        done = boxed.run(tree, script, inputs=inputs, writable={"/out": out, "/build": Path(build)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list(folder: Path) -> None:
    # Bytewise: "usr-x" before "usr/lib" because "-" is 0x2d and "/" 0x2f; folders before their members.
    assert (
        initramfs.listing(load(folder))
        == """\
nod /console 0600 0 0 c 5 1
file /init /inputs/artifacts/agent 0755 0 0
dir /usr 0755 0 0
dir /usr-x 1777 0 0
dir /usr/lib 0711 0 0
file /usr/lib/data /inputs/files/data/file.txt 0640 0 0
slink /usr/link lib/data 0777 0 0
"""
    )


def test_the_contents(folder: Path) -> None:
    assert load(folder).files() == {"/inputs/files/data/file.txt": "data/file.txt"}
    assert load(folder).artifacts() == {"/inputs/artifacts/agent": "agent"}


def test_members(folder: Path, pack: Pack) -> None:
    """And nothing of the build machine: owner, times, device numbers."""
    members = {m.name: m for m in newc((pack(folder) / "initramfs.cpio").read_bytes())}
    assert list(members) == ["console", "init", "usr", "usr-x", "usr/lib", "usr/lib/data", "usr/link"]
    assert {name: oct(m.mode) for name, m in members.items()} == {
        "console": "0o20600",
        "init": "0o100755",
        "usr": "0o40755",
        "usr-x": "0o41777",
        "usr/lib": "0o40711",
        "usr/lib/data": "0o100640",
        "usr/link": "0o120777",
    }
    assert members["usr/lib/data"].data == b"content of the file\n"
    assert members["init"].data == b"\x7fELF" + b"\0" * 100
    # The kernel's unpacker takes the size from the header; the program counts a zero byte in.
    assert members["usr/link"].data == b"lib/data\0"
    assert members["console"].rdev == (5, 1)
    assert all(m.rdev == (0, 0) for m in members.values() if m.name != "console")
    assert [m.ino for m in members.values()] == list(range(721, 728))
    assert {(m.uid, m.gid, m.dev, m.mtime) for m in members.values()} == {(0, 0, (3, 1), EPOCH)}


def test_same_bytes_whatever_the_machine(folder: Path, pack: Pack, tmp_path: Path) -> None:
    first = pack(folder)
    # Another order in the manifest, other times and modes of the sources.
    blocks = MANIFEST.split("[[entry]]")
    (folder / "manifest.toml").write_text("[[entry]]".join([blocks[0], *reversed(blocks[1:])]))
    (folder / "data/aaa").write_text("not in the manifest")
    (folder / "data/file.txt").chmod(0o666)
    again = pack(folder)
    for name in ("initramfs.cpio", "initramfs.cpio.zst"):
        assert (again / name).read_bytes() == (first / name).read_bytes()
    (folder / "data/file.txt").write_bytes(b"content of the fire\n")
    assert (pack(folder) / "initramfs.cpio").read_bytes() != (first / "initramfs.cpio").read_bytes()


def test_budget(folder: Path, pack: Pack) -> None:
    made = pack(folder)
    outputs = {path.name: path for path in made.iterdir()}
    size = outputs["initramfs.cpio.zst"].stat().st_size
    initramfs.check_budget(size, outputs)
    with pytest.raises(BuildError) as info:
        initramfs.check_budget(size - 1, outputs)
    assert str(info.value) == (
        f"initramfs: {size} bytes compressed, 1 over the budget of {size - 1}; "
        "largest members, uncompressed: init 104 B, usr/lib/data 20 B, usr/link 9 B"
    )


def test_the_example_of_the_documentation(repository: Path, tmp_path: Path, pack: Pack, build_tree: Tree) -> None:
    """Its commands copy the files, its entries are packed, and its command lists them as it shows."""
    text = (repository / "docs/initramfs.md").read_text()
    command, copies, entries, shown = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    # Not the shipped manifest, which may have the example in it by now.
    folder = tmp_path / "checkout/initramfs"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(
        'schema = 2\nbudget = 1000\n[[entry]]\npath = "dev"\ntype = "dir"\nmode = "0755"\n'
    )
    (tmp_path / "busybox").write_text("busybox")
    script = copies.replace("/usr/bin/busybox", str(tmp_path / "busybox"))
    subprocess.run(["/bin/sh", "-euc", script], cwd=tmp_path / "checkout", check=True)
    with (folder / "manifest.toml").open("a") as manifest:
        manifest.write(entries)
    out = pack(folder)
    (tmp_path / "nothing").mkdir()
    command = command.replace("out/", "/inputs/out/")
    listed = run(build_tree, command, {"/inputs/out": out}, tmp_path / "nothing")
    # All but the size of the real busybox.
    lines = {re.sub(r" {2,}\d+ Jan(?=.*busybox$)", " Jan", line) for line in listed.splitlines()}
    assert {re.sub(r" {2,}\d+ Jan(?=.*busybox$)", " Jan", line) for line in shown.splitlines()} <= lines


def test_the_shipped_manifest(repository: Path) -> None:
    """What must hold whatever people add: an init, a console for it, a budget."""
    manifest = initramfs.load(repository / "initramfs/manifest.toml", artifacts=["agent"])
    assert manifest.budget <= 14_000_000
    lines = initramfs.listing(manifest).splitlines()
    assert "file /init /inputs/artifacts/agent 0755 0 0" in lines
    assert "nod /dev/console 0600 0 0 c 5 1" in lines


FILE = 'file = "data/file.txt"'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema = 2", "schema = 1", "schema: 1 is not in 2…2"),
        ("budget = 1000", "budget = 0", "budget: 0 is not in"),
        ("budget = 1000", "budget = 1000\nx = 1", "x: unknown key"),
        ('"init"', '"/init"', "entry[3].path (/init): '/init' is not a relative path"),
        ('"init"', '"../init"', "entry[3].path (../init): '../init' must not hold . or .."),
        ('"init"', '"usr/../init"', "must not hold . or .."),
        ('"init"', '"./init"', "must not hold . or .."),
        ('"init"', '"usr//init"', "is not a relative path"),
        ('"init"', '"usr/"', "is not a relative path"),
        ('"init"', '"TRAILER!!!"', "would end the archive"),
        ('"init"', '"in it"', "'in it' is not a relative path in printable ASCII without blanks"),
        ('"init"', '"ïnit"', "'ïnit' is not a relative path in printable ASCII without blanks"),
        ('"init"', '"in\\nit"', "is not a relative path in printable ASCII"),
        ('path = "init"', "", "entry[3].path: missing"),
        ('"init"', f'"{"x" * 256}"', "is longer than"),
        ('"init"', '"usr-x"', "entry[5].path (usr-x): 'usr-x' stands twice"),
        ('"init"', '"lib/init"', "'lib/init' has no parent 'lib'; list the folder: its mode matters"),
        ('"init"', '"console/init"', "'console/init' has no parent 'console'"),
        ('"char"', '"block"', "entry[6].type (console): 'block' is not one of: dir, file, link, char"),
        ('"0640"', '"640"', "entry[0].mode (usr/lib/data): '640' is not an octal mode such as 0755"),
        ('"0640"', '"0648"', "is not an octal mode"),
        ('"0640"', "416", "entry[0].mode (usr/lib/data): must be an octal mode such as 0755, not an integer"),
        ('"agent"', '"agnet"', "entry[3].artifact (init): no artifact 'agnet'; did you mean 'agent'?"),
        ('artifact = "agent"', "", "exactly one of artifact and file"),
        ('artifact = "agent"', f'artifact = "agent"\n{FILE}', "exactly one of artifact and file"),
        (FILE, 'file = "../agent"', "entry[0].file (usr/lib/data): '../agent' leaves initramfs/"),
        (FILE, 'file = "/etc/passwd"', "entry[0].file (usr/lib/data): '/etc/passwd' leaves initramfs/"),
        (FILE, 'file = "data/missing"', "entry[0].file (usr/lib/data): no file initramfs/data/missing"),
        (FILE, 'file = "data"', "no file initramfs/data"),
        (FILE, f'file = "{"x" * 300}"', "entry[0].file (usr/lib/data): "),
        (FILE, f'{FILE}\ntarget = "x"', "entry[0].target (usr/lib/data): unknown key"),
        ('target = "lib/data"', 'target = "über"', "(usr/link): 'über' is not a target in printable ASCII"),
        ('target = "lib/data"', 'target = "a b"', "'a b' is not a target in printable ASCII without blanks"),
        ('target = "lib/data"', "", "entry[4].target (usr/link): missing"),
        ('type = "link"', 'type = "link"\nmode = "0777"', "entry[4].mode (usr/link): unknown key"),
        ("major = 5", "major = 4096", "entry[6].major (console): 4096 is not in 0…4095"),
        ("minor = 1", "", "entry[6].minor (console): missing"),
    ],
)
def test_refuses(folder: Path, old: str, new: str, says: str) -> None:
    assert old in MANIFEST
    (folder / "manifest.toml").write_text(MANIFEST.replace(old, new, 1))
    with pytest.raises(UserError) as info:
        load(folder)
    assert str(info.value).startswith("initramfs/manifest.toml: ")
    assert says in str(info.value)


def link(folder: Path) -> None:
    (folder / "data/real.txt").write_text("x")
    (folder / "data/file.txt").unlink()
    (folder / "data/file.txt").symlink_to("real.txt")


def link_outside(folder: Path) -> None:
    (folder / "data/file.txt").unlink()
    (folder / "data").rmdir()
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside/file.txt").write_text("x")
    (folder / "data").symlink_to("../outside")


@pytest.mark.parametrize(
    ("spoil", "says"), [(link, "no file initramfs/data/file.txt"), (link_outside, "leaves initramfs/")]
)
def test_refuses_linked_sources(folder: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=says):
        load(folder)
