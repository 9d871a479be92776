# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One layer, one normal form and one image: as a tar or as a folder, in any order, for anybody, anywhere."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.launcher.layers.layer_kit import (
    ROOT,
    Node,
    folder,
    lay_out,
    listing,
    members,
    normal_of_folder,
    normal_of_tar,
    pack,
    tar_of,
)  # fmt: skip
from tools.launcher.layers import image

REPOSITORY = Path(__file__).resolve().parents[3]
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

_names = strategies.one_of(
    strategies.sampled_from(
        [b"a", b"b", b"etc", b"-x", b" ", b"a\nb", b"\xff\xfe", "ä".encode(), b"..a", b"x=y", b"n" * 101]
    ),
    strategies.binary(min_size=1, max_size=8).map(lambda raw: raw.translate(None, b"\0/") or b"z"),
    strategies.integers(99, 255).map(lambda size: b"l" * size),
).filter(lambda name: name not in (b".", b"..") and not name.startswith(b".wh."))
_ids = strategies.sampled_from([0, 1, 1000, 65534, 2097151, 2097152, 4294967294]) if ROOT else strategies.just(0)
_times = strategies.one_of(strategies.just(0), strategies.integers(0, 8_000_000_000 * 10**9))
_xattrs = strategies.dictionaries(
    strategies.sampled_from(["user.a", "user.b.c", "user.ü"]), strategies.binary(max_size=40), max_size=2
)
_capabilities = strategies.sampled_from([{}, {"security.capability": _CAPABILITY}] if ROOT else [{}])
_files = strategies.builds(
    Node,
    mode=strategies.integers(0, 0o7777).map(lambda mode: mode | 0o600),
    uid=_ids, gid=_ids, nanoseconds=_times,
    xattrs=strategies.builds(dict.__or__, _xattrs, _capabilities),
    data=strategies.one_of(strategies.binary(max_size=40), strategies.sampled_from([b"x" * 512, b"y" * 5000])),
)  # fmt: skip
_symlinks = strategies.builds(
    Node, kind=strategies.just("symlink"), mode=strategies.just(0o777), uid=_ids, gid=_ids, nanoseconds=_times,
    target=strategies.sampled_from([b"a", b"/etc/passwd", b"../../..", b"\xff", b"t" * 101, b"nowhere/\n"]),
)  # fmt: skip
_fifos = strategies.builds(Node, kind=strategies.just("fifo"), mode=strategies.integers(0, 0o777), uid=_ids, gid=_ids)
_whiteouts = strategies.builds(Node, kind=strategies.just("whiteout"))
_leaves = strategies.one_of(_files, _files, _symlinks, _fifos, _whiteouts)


def _folders(children: strategies.SearchStrategy[Node]) -> strategies.SearchStrategy[Node]:
    return strategies.builds(
        Node,
        kind=strategies.just("folder"),
        mode=strategies.integers(0, 0o7777).map(lambda mode: mode | 0o700),
        uid=_ids, gid=_ids, nanoseconds=_times, xattrs=_xattrs,
        children=strategies.dictionaries(_names, children, max_size=4),
        described=strategies.booleans(), opaque=strategies.booleans(),
    )  # fmt: skip


@strategies.composite
def layers(draw: strategies.DrawFn) -> Node:
    """A layer's root, whose files have a few further names."""
    root = draw(strategies.recursive(_leaves, _folders, max_leaves=12))
    if root.kind != "folder":
        root = folder({b"only": root})

    def linked(node: Node) -> Node:
        children = {name: linked(child) for name, child in node.children.items()}
        taken = set(children)
        for name, child in list(children.items()):
            if child.kind in {"file", "symlink"} and not child.xattrs and draw(strategies.integers(0, 5)) == 0:
                others = tuple(other for other in (name[:200] + b"-2", b"0") if other not in taken)
                taken.update(others)
                children[name] = Node(**{**vars(child), "links": others})
        return Node(**{**vars(node), "children": children})

    return linked(root)


@pytest.fixture
def mkfs(artifacts: Path) -> Path:
    return artifacts / "mkfs.erofs"


def erofs(mkfs: Path, normal: bytes, place: Path) -> bytes:
    """The image of a normal form."""
    (place / "normal.tar").write_bytes(normal)
    image.make(mkfs, place / "normal.tar", place / "image")
    return (place / "image").read_bytes()


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(root=layers(), data=strategies.data())
def test_a_tar_and_a_folder_give_the_same_bytes(root: Node, data: strategies.DataObject, mkfs: Path) -> None:
    """Members in any order and any form, with or without an entry for the root and for folders."""
    first, last = members(root)
    chosen = [*data.draw(strategies.permutations(first)), *data.draw(strategies.permutations(last))]
    if data.draw(strategies.booleans()):
        entry = tarfile.TarInfo(".")
        entry.type, entry.mode, entry.uid = tarfile.DIRTYPE, 0o700, 1234
        chosen.insert(data.draw(strategies.integers(0, len(first))), (entry, b""))
    normal = normal_of_tar(pack(chosen, prefix=data.draw(strategies.sampled_from(["", "./", "/", ".//"]))))
    overlay = data.draw(strategies.sampled_from(["user.overlay.", "trusted.overlay."] if ROOT else ["user.overlay."]))
    with tempfile.TemporaryDirectory() as name:
        lay_out(root, Path(name) / "upper", overlay=overlay)
        assert normal_of_folder(Path(name) / "upper") == normal
        # A normal form is its own.
        assert normal_of_tar(normal) == normal
        before = erofs(mkfs, normal, Path(name))
        (Path(name) / "image").unlink()
        assert erofs(mkfs, normal, Path(name)) == before


_SHELL = Node(mode=0o755, data=b"#!" * 3000, nanoseconds=17 * 10**17 + 9 * 10**8, links=(b"ash",))
SAMPLE = folder(
    {
        b"bin": folder({b"sh": _SHELL}),
        b"etc": folder({b"passwd": Node(data=b"root:x:0:0\n"), b"gone": Node(kind="whiteout")}, opaque=True),
        b"tmp": folder({b"pipe": Node(kind="fifo", mode=0o600)}, mode=0o1777),
        b"lib": Node(kind="symlink", target=b"usr/lib", mode=0o777),
        b"n" * 120: Node(xattrs={"user.note": b"\x00\n="}, data=b"long"),
    }
)  # fmt: skip
# Reads a tar, writes an image, prints its digest: in a process of its own, whose surroundings are varied.
_MAKE = """
import hashlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
from tools.launcher.layers import layer
from tools.launcher.layers.below import Below
source, target, mkfs = map(pathlib.Path, sys.argv[2:])
with source.open("rb") as stream:
    found = layer.of_archive(stream, size=source.stat().st_size, where="layer.tar")
    layer.make_image(found, Below(), target, mkfs=mkfs)
print(hashlib.sha256(target.read_bytes()).hexdigest())
"""


def test_the_bytes_are_these(mkfs: Path, tmp_path: Path) -> None:
    """The normal form and the image of a small layer: whoever changes them changes everybody's launch digests."""
    normal = normal_of_tar(tar_of(SAMPLE))
    assert hashlib.sha256(normal).hexdigest() == "c6a04d8d6024cd50bb9023ca7238941d72255895dccf22dfe2a9942331defb82"
    assert (
        hashlib.sha256(erofs(mkfs, normal, tmp_path)).hexdigest()
        == "60d727962e11bf102a08f138fbc1f2e39d0296567727fb5bbe7f1965d50183a4"
    )


def test_a_normal_form_lists_everything_in_order(tmp_path: Path) -> None:
    """As another program reads it: every folder has an entry, and the root too; no names of users; whole seconds."""
    found = listing(normal_of_tar(tar_of(SAMPLE)))
    assert list(found) == [
        "./", "bin/", "bin/ash", "bin/sh", "etc/", "etc/.wh..wh..opq", "etc/.wh.gone", "etc/passwd", "lib", "n" * 120,
        "tmp/", "tmp/pipe",
    ]  # fmt: skip
    assert {info.uname + info.gname for info in found.values()} == {""}
    assert found["bin/sh"].islnk()
    assert found["bin/ash"].mtime == 1_700_000_000
    assert {info.mtime for name, info in found.items() if not name.startswith("bin/")} == {0}
    assert found["tmp/"].mode == 0o1777
    assert found["n" * 120].pax_headers["SCHILY.xattr.user.note"] == "\x00\n="


@pytest.mark.parametrize(
    ("wrapper", "environment", "umask"),
    [
        (["bwrap", "--unshare-user", "--uid", "1234", "--gid", "99", "--dev-bind", "/", "/"], {}, 0o022),
        ([], {"TZ": "Pacific/Auckland"}, 0o022),
        ([], {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0"}, 0o022),
        ([], {"SOURCE_DATE_EPOCH": "1234567890", "PYTHONHASHSEED": "7"}, 0o022),
        ([], {}, 0o077),
        (["setarch", "linux32", "-R"], {}, 0o022),
        (["taskset", "1"], {}, 0o022),
    ],
    ids=["user", "time zone", "locale", "epoch", "umask", "personality", "cores"],
)
def test_who_makes_it_and_where_does_not_matter(
    wrapper: list[str], environment: dict[str, str], umask: int, mkfs: Path, tmp_path: Path
) -> None:
    (tmp_path / "layer.tar").write_bytes(tar_of(SAMPLE))
    digests = []
    for number, (words, more, mask) in enumerate([([], {}, 0o022), (wrapper, environment, umask)]):
        paths = [REPOSITORY, tmp_path / "layer.tar", tmp_path / f"{number}", mkfs]
        argv = [*words, sys.executable, "-c", _MAKE, *map(str, paths)]
        done = subprocess.run(argv, env={**os.environ, **more}, umask=mask, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert digests[0] == digests[1]


def test_without_an_entry_for_the_root_the_user_would_matter(mkfs: Path, tmp_path: Path) -> None:
    """The control: mkfs.erofs alone gives the root to its caller."""
    normal = normal_of_tar(tar_of(SAMPLE))
    assert normal.startswith(b"./\0")
    for data, different in ((normal, 1), (normal[512:], 2)):
        (tmp_path / "layer.tar").write_bytes(data)
        images = set()
        for user in ("1234", "1235"):
            sandbox = ["bwrap", "--unshare-user", "--uid", user, "--gid", "99", "--dev-bind", "/", "/"]
            argv = [*sandbox, str(mkfs), *image._OPTIONS, str(tmp_path / "image"), str(tmp_path / "layer.tar")]
            subprocess.run(argv, check=True, capture_output=True)
            images.add((tmp_path / "image").read_bytes())
            (tmp_path / "image").unlink()
        assert len(images) == different


def test_a_plain_directory_gives_the_same_as_a_tar(tmp_path: Path) -> None:
    """Without anything of overlayfs, as people unpack an image by hand; what mkdir gave its top does not matter."""
    root = folder({name: node for name, node in SAMPLE.children.items() if name != b"etc"})
    lay_out(root, tmp_path / "root")
    normal = normal_of_tar(tar_of(root))
    for mode in (0o700, 0o755):
        (tmp_path / "root").chmod(mode)
        assert normal_of_folder(tmp_path / "root", upper=False) == normal
    # The control: what does matter.
    (tmp_path / "root/tmp").chmod(0o755)
    assert normal_of_folder(tmp_path / "root", upper=False) != normal
