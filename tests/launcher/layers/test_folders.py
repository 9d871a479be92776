# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Unpacked folders: what of overlayfs is understood, what is refused, what is left out with a note."""

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.layers.layer_kit import OWNER, ROOT, listing, normal_of_folder
from tools.launcher.base.errors import UserError
from tools.launcher.layers import contents, from_folder
from tools.launcher.layers.tree import Folder, Inode


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    place = tmp_path / "upper"
    (place / "d").mkdir(parents=True)
    (place / "d/f").write_bytes(b"content")
    return place


def _attribute(name: str, value: bytes) -> Callable[[Path], None]:
    return lambda place: os.setxattr(place / "d", name, value)


PREFIXES = ["user.overlay.", *(["trusted.overlay."] if ROOT else [])]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("name", "value"),
    [("redirect", b"/other"), ("metacopy", b""), ("opaque", b"x"), ("protattr", b""), ("whiteout", b""), ("new", b"")],
)
def test_attributes_that_change_a_meaning_are_refused(upper: Path, prefix: str, name: str, value: bytes) -> None:
    """Beside those that a mounted overlayfs leaves behind as its memory, without which a layer means the same."""
    before = normal_of_folder(upper)
    for memory in ("origin", "impure", "nlink", "uuid"):
        os.setxattr(upper / "d", prefix + memory, b"y")
    assert normal_of_folder(upper) == before
    os.setxattr(upper / "d", prefix + name, value)
    with pytest.raises(UserError, match=rf"'d' has overlayfs's attribute '{prefix}{name}'; mount overlayfs with"):
        normal_of_folder(upper)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_opaque_folder_hides_what_is_below(upper: Path, prefix: str) -> None:
    assert "d/.wh..wh..opq" not in listing(normal_of_folder(upper))
    os.setxattr(upper / "d", f"{prefix}opaque", b"y")
    assert "d/.wh..wh..opq" in listing(normal_of_folder(upper))
    # In a root file system it means nothing, and says that something else was given than was meant.
    with pytest.raises(UserError, match="for overlayfs alone"):
        normal_of_folder(upper, upper=False)


def test_a_whiteout_is_a_device_only_in_a_layer(upper: Path) -> None:
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    assert ".wh.gone" in listing(normal_of_folder(upper))
    with pytest.raises(UserError, match="'gone' is a device; leave it out"):
        normal_of_folder(upper, upper=False)


def test_devices_are_refused(upper: Path) -> None:
    """Those of this machine: not everybody may make one."""
    assert listing(normal_of_folder(upper, upper=False))
    with pytest.raises(UserError, match=r"/dev: '[^']+' is a device; leave it out; the guest has its own /dev"):
        from_folder.read(Path("/dev"), upper=False, note=print)


@pytest.mark.parametrize("name", [".wh.f", ".wh..wh..opq", ".wh."])
def test_a_name_that_would_become_a_whiteout_is_refused(upper: Path, name: str) -> None:
    """The rootless engines' way, which cannot be told from a file of that name."""
    (upper / "d/wh.f").touch()
    assert "d/wh.f" in listing(normal_of_folder(upper))
    (upper / "d" / name).touch()
    with pytest.raises(UserError, match="has the name of a whiteout"):
        normal_of_folder(upper)


def test_sockets_are_left_out_with_a_note(upper: Path) -> None:
    before = normal_of_folder(upper)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(upper / "s"))
        notes: list[str] = []
        tree = from_folder.read(upper, upper=True, userxattr=not ROOT, owner=OWNER, note=notes.append)
    assert notes == [f"{upper}/s: socket left out"]
    assert b"s" not in tree.root.children
    (upper / "s").unlink()
    assert normal_of_folder(upper) == before


def test_an_access_control_list_is_refused(upper: Path) -> None:
    """It would be lost, and the group would get what the list's mask grants."""
    entries = [(1, 6, -1), (2, 6, 1000), (4, 0, -1), (0x10, 6, -1), (0x20, 0, -1)]
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, rights, who in entries
    )
    os.setxattr(upper / "d/f", "system.posix_acl_access", acl)
    with pytest.raises(UserError, match="'d/f' has an access control list, which layers lack; remove it"):
        normal_of_folder(upper)
    os.removexattr(upper / "d/f", "system.posix_acl_access")
    assert "d/f" in listing(normal_of_folder(upper))


def _longer(path: Path) -> None:
    path.write_bytes(b"content and more")


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [_longer, _link, _pipe])
def test_a_file_that_changes_meanwhile_is_refused(upper: Path, change: Callable[[Path], None], tmp_path: Path) -> None:
    tree = from_folder.read(upper, upper=True, userxattr=not ROOT, owner=OWNER, note=print)
    folder = tree.root.children[b"d"]
    assert isinstance(folder, Folder)
    inode = folder.children[b"f"]
    assert isinstance(inode, Inode)
    with (tmp_path / "before").open("wb") as output:
        contents.of_folder()(inode, output)
    assert (tmp_path / "before").read_bytes() == b"content"
    change(upper / "d/f")
    with (tmp_path / "after").open("wb") as output, pytest.raises(UserError, match="changed while it was read"):
        contents.of_folder()(inode, output)


def test_what_cannot_be_read_says_where(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing") as caught:
        normal_of_folder(tmp_path / "missing")
    assert caught.value.errno == errno.ENOENT


_READ = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from tools.launcher.base.errors import UserError
from tools.launcher.layers import from_folder
try:
    from_folder.read(pathlib.Path(sys.argv[2]), upper=True, userxattr=len(sys.argv) > 3, owner=(0, 0), note=print)
except UserError as error:
    print(error)
"""


def test_who_cannot_see_overlayfs_attributes_is_told_so(upper: Path, repository: Path) -> None:
    """Linux shows trusted.* to the machine's root alone: to others an opaque folder would look like any."""

    def said(*more: str) -> str:
        argv = [
            "bwrap",
            "--unshare-user",
            "--uid",
            "0",
            "--gid",
            "0",
            "--dev-bind",
            "/",
            "/",
            sys.executable,
            "-c",
            _READ,
        ]
        done = subprocess.run([*argv, str(repository), str(upper), *more], capture_output=True, text=True, check=True)
        return done.stdout

    assert said().startswith(f"{upper}: only root sees which folders of an overlayfs layer are opaque")
    assert said("userxattr") == ""
