# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of folders: the bytes of the Remote Execution API, and what counts in them."""

import hashlib
import os
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.merkle import Digest, File, Folder, Link

HELLO = Digest.of(b"hello\n")


def test_the_encoding_is_that_of_the_directory_message() -> None:
    """Field by field from remote_execution.proto: FileNode 1, DirectoryNode 2, SymlinkNode 3 of Directory."""
    folder = Folder()
    folder.add(b"sub/f", File(digest=Digest.of(b"")))
    folder.add(b"x", File(digest=HELLO, executable=True))
    folder.add(b"l", Link(target=b"../x"))
    empty, hello = hashlib.sha256(b"").hexdigest(), hashlib.sha256(b"hello\n").hexdigest()
    # A size of zero is proto3's default, which is not written.
    sub = b"\x0a\x47" + b"\x0a\x01f" + b"\x12\x42" + b"\x0a\x40" + empty.encode()
    digest = b"\x0a\x40" + hashlib.sha256(sub).hexdigest().encode() + b"\x10" + bytes([len(sub)])
    assert folder.encoded() == (
        b"\x0a\x4b\x0a\x01x\x12\x44\x0a\x40" + hello.encode() + b"\x10\x06\x20\x01"
        b"\x12\x4b\x0a\x03sub\x12" + bytes([len(digest)]) + digest + b"\x1a\x09\x0a\x01l\x12\x04../x"
    )
    assert folder.digest() == Digest.of(folder.encoded())


def test_lengths_beyond_one_byte() -> None:
    folder = Folder()
    folder.add(b"n" * 300, File(digest=Digest(sha256="0" * 64, size=300)))
    assert folder.encoded()[:6] == b"\x0a\xf6\x02\x0a\xac\x02"
    assert b"\x10\xac\x02" in folder.encoded()


def test_an_empty_folder_is_the_empty_message() -> None:
    assert Folder().digest() == Digest.of(b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub/empty").mkdir(parents=True)
    (root / "sub/file").write_text("text")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "link").symlink_to("nowhere")
    (root / os.fsdecode(b"caf\xe9")).touch()
    return root


def test_what_is_read_is_what_was_put_together(folder: Path) -> None:
    made = Folder()
    made.folder(b"sub/empty")
    made.add(b"sub/file", File(digest=Digest.of(b"text")))
    made.add(b"tool", File(digest=Digest.of(b"#!/bin/sh\n"), executable=True))
    made.add(b"link", Link(target=b"nowhere"))
    made.add(b"caf\xe9", File(digest=Digest.of(b"")))
    assert merkle.read(folder).digest() == made.digest()


def test_the_order_in_which_a_file_system_lists_does_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = merkle.read(folder)
    real = merkle._entries
    monkeypatch.setattr(merkle, "_entries", lambda path: reversed(list(real(path))))
    after = merkle.read(folder)
    assert list(after.members) == list(reversed(before.members))
    assert after.digest() == before.digest()


def test_times_owners_and_the_umasks_bits_do_not_count(folder: Path) -> None:
    before = merkle.read(folder).digest()
    (folder / "sub/file").chmod(0o600)
    (folder / "tool").chmod(0o700)
    (folder / "sub").chmod(0o700)
    os.utime(folder / "sub/file", (1, 1))
    assert merkle.read(folder).digest() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "sub/file").write_text("Text"),
        lambda root: (root / "sub/file").chmod(0o755),
        lambda root: (root / "sub/file").rename(root / "sub/File"),
        lambda root: (root / "sub/file").rename(root / "file"),
        lambda root: (root / "sub/empty").rmdir(),
        lambda root: ((root / "link").unlink(), (root / "link").symlink_to("elsewhere")),
        lambda root: ((root / "link").unlink(), (root / "link").write_text("nowhere")),
    ],
    ids=["content", "executable", "name", "place", "empty folder", "target", "a file for a link"],
)
def test_everything_else_does(folder: Path, change: object) -> None:
    before = merkle.read(folder).digest()
    assert callable(change)
    change(folder)
    assert merkle.read(folder).digest() != before


def test_devices_and_fifos_are_refused(folder: Path) -> None:
    os.mkfifo(folder / "sub/fifo")
    with pytest.raises(BuildError, match="sub/fifo: is neither a file, a folder nor a link"):
        merkle.read(folder)


def test_one_place_takes_one_thing() -> None:
    made = Folder()
    made.add(b"a/b", File(digest=HELLO))
    with pytest.raises(ValueError, match="there twice"):
        made.add(b"a/b", Link(target=b"x"))
    with pytest.raises(ValueError, match="runs through"):
        made.add(b"a/b/c", File(digest=HELLO))


def test_a_file_is_hashed_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    (tmp_path / "link").symlink_to("file")
    assert merkle.file(tmp_path / "file", shown_as="f") == File(digest=HELLO)
    with pytest.raises(UserError, match=r"^l: is no regular file"):
        merkle.file(tmp_path / "link", shown_as="l")
    with pytest.raises(UserError, match=r"^n: No such file"):
        merkle.file(tmp_path / "none", shown_as="n")


def test_the_digest_of_a_copy_is_of_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    assert merkle.copy(tmp_path / "file", tmp_path / "copy") == HELLO
    assert (tmp_path / "copy").read_bytes() == b"hello\n"
    with pytest.raises(FileExistsError):
        merkle.copy(tmp_path / "file", tmp_path / "copy")
