# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Archives that are damaged, or mean harm: each is refused in one line, and its nearest neighbour is taken."""

import io
from collections.abc import Callable, Sequence
from types import GeneratorType

import pytest

from tests.launcher.layers.layer_kit import listing, normal_of_tar
from tests.launcher.layers.tar_bytes import END, folder, member, pax
from tools.launcher.base.errors import UserError
from tools.launcher.layers import tar_reader, tree

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
XATTR = b"SCHILY.xattr."
F = member(data=b"x")
# What is refused, by which words, and what is taken beside it.
CASES: dict[str, tuple[bytes, str, bytes]] = {
    "parent": (member(b"a/../../b"), "leads out of the layer", member(b"a/..b")),
    "absolute parent": (member(b"/../b"), "leads out of the layer", member(b"/b")),
    "parent in pax": (pax((b"path", b"../b")) + F, "leads out of the layer", pax((b"path", b"./b")) + F),
    "parent in prefix": (member(b"b", prefix=b"a/.."), "leads out of the layer", member(b"b", prefix=b"a/.")),
    "parent in GNU name": (member(b"@", b"L", b"../b\0") + F, "leads out of", member(b"@", b"L", b"b\0") + F),
    "NUL in a name": (pax((b"path", b"a\0b")) + F, "NUL byte", pax((b"path", b"a\nb")) + F),
    "no name": (member(b""), "without a name", member(b"f")),
    "long name": (pax((b"path", b"n" * 256)) + F, "more than 255", pax((b"path", b"n" * 255)) + F),
    "long path": (pax((b"path", b"n/" * 2049)) + F, "more than 4095", pax((b"path", b"n/" * 2000)) + folder(b"n")),
    "link out": (F + member(b"l", b"1", link=b"../f"), "leads out of the layer", F + member(b"l", b"1", link=b"./f")),
    "link ahead": (
        member(b"l", b"1", link=b"f") + F,
        "no file of this layer before",
        F + member(b"l", b"1", link=b"f"),
    ),
    "link to folder": (folder(b"d") + member(b"l", b"1", link=b"d"), "no file of this layer", folder(b"d") + F),
    "link to whiteout": (
        member(b".wh.f") + member(b"l", b"1", link=b"f"),
        "no file of this layer",
        member(b".wh.g") + F,
    ),
    "link below": (member(b"l", b"1", link=b"gone"), "no file of this layer", F),
    "through a symlink": (
        member(b"s", b"2", link=b"/etc") + member(b"s/f"),
        "below 's', which is a symbolic link",
        member(b"s", b"2", link=b"/etc") + member(b"t/f"),
    ),
    "below a file": (F + member(b"f/g"), "which is no folder", F + member(b"g/f")),
    "folder over file": (F + folder(b"f"), "stands twice", F + member(b"f")),
    "file over folder": (folder(b"f") + F, "stands twice", folder(b"f") + folder(b"f")),
    "root is a file": (member(b"./"[:1]), "root that is no folder", folder(b".")),
    "empty symlink": (member(b"s", b"2"), "which Linux cannot hold", member(b"s", b"2", link=b"../../../etc")),
    "character device": (member(b"c", b"3"), "is a character device; leave it out", member(b"c", b"6")),
    "block device": (member(b"c", b"4"), "is a block device", member(b"c", b"6")),
    "sparse": (member(b"s", b"S"), "is sparse; make the archive without", member(b"s")),
    "sparse in pax": (pax((b"GNU.sparse.major", b"1")) + F, "is sparse", pax((b"comment", b"1")) + F),
    "volume label": (member(b"v", b"V"), "is a volume label", F),
    "other volume": (member(b"v", b"M"), "begins in another volume", F),
    "unknown type": (member(b"v", b"Z"), "unknown type 'Z'", member(b"v", b"7")),
    "redirect_dir": (
        pax((XATTR + b"trusted.overlay.redirect", b"/etc")) + folder(b"d"),
        "for overlayfs alone",
        pax((XATTR + b"trusted.md5", b"/etc")) + folder(b"d"),
    ),
    "metacopy": (pax((XATTR + b"trusted.overlay.metacopy", b"")) + F, "for overlayfs alone", F),
    "opaque as attribute": (
        pax((XATTR + b"user.overlay.opaque", b"y")) + folder(b"d"),
        "for overlayfs alone",
        folder(b"d") + member(b"d/.wh..wh..opq"),
    ),
    "overlay by libarchive": (
        pax((b"LIBARCHIVE.xattr.trusted.overlay%2Eopaque", b"eQ")) + folder(b"d"),
        "for overlayfs alone",
        pax((b"LIBARCHIVE.xattr.user.overlay", b"eQ")) + folder(b"d"),
    ),
    "owner elsewhere": (
        pax((XATTR + b"user.containers.override_stat", b"0:0:04755")) + F,
        "for overlayfs alone",
        pax((XATTR + b"user.containers", b"")) + F,
    ),
    "ACL": (
        pax((XATTR + b"system.posix_acl_access", b"x")) + F,
        "access control list",
        pax((XATTR + b"system.x", b"")) + F,
    ),
    "ACL as text": (
        pax((b"SCHILY.acl.access", b"user::rw-")) + F,
        "access control list",
        pax((b"SCHILY.dev", b"1")) + F,
    ),
    "capability of a namespace": (
        pax((XATTR + b"security.capability", b"\1\0\0\3" + bytes(20))) + F,
        "another version than 2",
        pax((XATTR + b"security.capability", CAPABILITY)) + F,
    ),
    "many attributes": (
        pax(*((XATTR + b"user.%d" % n, b"v" * 60000) for n in range(2))) + F,
        "more than 65536 bytes",
        pax((XATTR + b"user.0", b"v" * 60000)) + F,
    ),
    "attribute not in base64": (
        pax((b"LIBARCHIVE.xattr.user.a", b"*")) + F,
        "not in base64",
        pax((b"LIBARCHIVE.xattr.user.a", b"YQ")) + F,
    ),
    "long attribute name": (
        pax((XATTR + b"user." + b"n" * 251, b"")) + F,
        "attribute called",
        pax((XATTR + b"user." + b"n" * 250, b"")) + F,
    ),
    "owner beyond": (pax((b"uid", b"4294967295")) + F, "an owner with id 4294967295", pax((b"uid", b"4294967294")) + F),
    "negative owner": (member(uid=b"\xff" * 8), "an owner with id -1", member(uid=b"\x80" + bytes(6) + b"\1")),
    "owner no number": (member(uid=b"0000009\0"), "a number '0000009'", member(uid=b"0000007\0")),
    "pax owner no number": (pax((b"uid", b"1e3")) + F, "'uid' '1e3'", pax((b"uid", b"1000")) + F),
    "time no number": (pax((b"mtime", b"now")) + F, "a time 'now'", pax((b"mtime", b"-1.5")) + F),
    "negative size": (member(size=b"\xff" * 12), "a size of -1", member(size=b"\x80" + bytes(11))),
    "size beyond the end": (member(size=b"00000010000\0"), "ends inside of 'f': truncated", F),
    "huge size": (member(size=b"\x80" + b"\xff" * 11), "ends inside of 'f': truncated", F),
    "pax size beyond": (pax((b"size", b"99999999999999")) + F, "ends inside of", pax((b"size", b"1")) + F),
    "checksum": (member(spoil=True), "damaged: no header at byte 0", F),
    "huge pax header": (
        member(b"p", b"x", size=b"77777777777\0"),
        "an extended header of",
        pax((b"comment", b"c" * 9000)) + F,
    ),
    "huge GNU name": (
        member(b"p", b"L", size=b"00000400000\0"),
        "an extended header of",
        member(b"@", b"L", b"b\0") + F,
    ),
    "cut pax header": (member(b"p", b"x", size=b"00000003000\0"), "ends inside of an extended header", F),
    "pax record too long": (
        member(b"p", b"x", b"99 a=b\n") + F,
        "extended header that is none",
        member(b"p", b"x", b"7 a=bc\n") + F,
    ),
    "pax record without end": (
        member(b"p", b"x", b"7 a=bcd") + F,
        "extended header that is none",
        member(b"p", b"x", b"7 a=bc\n") + F,
    ),
    "pax record of length 0": (member(b"p", b"x", b"0 a=b\n") + F, "extended header that is none", pax() + F),
    "pax header at the end": (F + pax((b"a", b"b")), "ends behind an extended header", pax((b"a", b"b")) + F),
    "name for all": (
        pax((b"path", b"x"), kind=b"g") + F,
        "'path' for all members",
        pax((b"comment", b"x"), kind=b"g") + F,
    ),
    "attributes for all": (
        pax((XATTR + b"user.a", b"x"), kind=b"g") + F,
        "for all members",
        pax((b"uid", b"3"), kind=b"g") + F,
    ),
    "opaque root": (member(b".wh..wh..opq"), "hides everything below it", member(b"d/.wh..wh..opq")),
    "aufs's own": (member(b".wh..wh.plnk"), "is no whiteout", member(b".wh.plnk")),
    "whiteout of nothing": (member(b"d/.wh."), "is no whiteout", member(b"d/.wh.x")),
    "whiteout of the parent": (member(b"d/.wh..."), "is no whiteout", member(b"d/.wh.....")),
    "whiteout of the folder": (member(b"d/.wh.."), "is no whiteout", member(b"d/.wh..x")),
    "below a whiteout": (member(b".wh.d/f"), "lies below a whiteout", member(b"wh.d/f")),
}


@pytest.mark.parametrize(("hostile", "words", "neighbour"), CASES.values(), ids=CASES.keys())
def test_what_means_harm_is_refused_in_one_line(hostile: bytes, words: str, neighbour: bytes) -> None:
    with pytest.raises(UserError, match=words) as caught:
        normal_of_tar(hostile + END)
    assert str(caught.value).startswith("layer.tar: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert listing(normal_of_tar(neighbour + END))


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda data: data[: len(data) - 1024], "ends before its end mark"),
        (lambda data: data[:700], "ends inside of 'f'"),
        (lambda data: data[:100], "ends before its end mark"),
        (lambda _: b"", "ends before its end mark"),
        (lambda _: bytes(20480), "a zeroed file"),
    ],
    ids=["end mark", "content", "header", "all", "zeroed"],
)
def test_what_ends_too_soon_is_refused(cut: Callable[[bytes], bytes], words: str) -> None:
    whole = member(data=b"x" * 513) + END
    with pytest.raises(UserError, match=words):
        normal_of_tar(cut(whole))
    assert listing(normal_of_tar(whole))["f"].size == 513


@pytest.mark.parametrize(
    ("limit", "number", "words"), [("ENTRIES_MAX", 3, "more than 3 files"), ("TEXT_MAX", 9, "MiB")]
)
def test_memory_is_bounded(limit: str, number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of members, also of those that replace one another, and by all names and attributes."""
    monkeypatch.setattr(tree, limit, number)
    members: Sequence[bytes] = [member(b"f%d" % n) for n in range(3)]
    assert listing(normal_of_tar(b"".join(members) + END))
    with pytest.raises(UserError, match=words):
        normal_of_tar(b"".join([*members, member(b"f" * 20)]) + END)
    if limit == "ENTRIES_MAX":
        with pytest.raises(UserError, match=words):
            normal_of_tar(member() * 4 + END)


def test_folders_that_only_a_name_implies_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of 4,095 bytes stands for two thousand of them."""
    monkeypatch.setattr(tree, "ENTRIES_MAX", 7)
    deep = member(b"a/b/c/f") + member(b"a/b/c/g")
    assert len(listing(normal_of_tar(deep + END))) == 6
    with pytest.raises(UserError, match="more than 7 files"):
        normal_of_tar(deep + member(b"a/d/e/f") + END)
    whiteouts = member(b"h/i/.wh.j") + member(b"k/.wh..wh..opq")
    assert listing(normal_of_tar(whiteouts + END))
    with pytest.raises(UserError, match="more than 7 files"):
        normal_of_tar(whiteouts + member(b"l/m/.wh..wh..opq") + END)


def test_hard_links_do_not_gather_attributes_without_end() -> None:
    """Each link's header adds to the file's own."""

    def linked(*names: bytes) -> bytes:
        more = b"".join(pax((XATTR + b"user." + name, bytes(20_000))) + member(name, b"1", link=b"f") for name in names)
        return F + more + END

    assert listing(normal_of_tar(linked(b"a", b"b", b"c")))
    with pytest.raises(UserError, match="more than 65536 bytes of attributes"):
        normal_of_tar(linked(b"a", b"b", b"c", b"d"))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_extended_headers_are_bounded_together(kind: bytes) -> None:
    """Any number may stand before one member; a member in between starts anew."""
    one = pax((b"comment", bytes(60_000))) if kind == b"x" else member(b"@", kind, b"n" * 60_000)
    last = pax((b"path", b"n"), (b"linkpath", b"n")) + member(b"n")
    assert listing(normal_of_tar((one * 17 + last) * 2 + END))
    with pytest.raises(UserError, match="1048576 bytes of extended headers for one member"):
        normal_of_tar(one * 18 + last + END)


def test_headers_for_all_members_leave_nothing_behind() -> None:
    """There may be any number of them; what counts for a layer are three numbers."""
    stream = io.BytesIO(b"".join(pax((b"k%d" % n, b"v"), (b"uid", b"7"), kind=b"g") for n in range(50)) + F + END)
    reading = tar_reader.members(stream, end=len(stream.getvalue()), where="layer.tar")
    assert next(reading).uid == 7
    assert isinstance(reading, GeneratorType)
    assert reading.gi_frame is not None
    assert reading.gi_frame.f_locals["everywhere"] == {b"uid": b"7"}


def test_a_very_deep_tree_does_not_exhaust_python() -> None:
    found = listing(normal_of_tar(pax((b"path", b"n/" * 2000)) + folder(b"n") + END))
    assert len(found) == 2001
