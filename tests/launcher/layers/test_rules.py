# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/bundle.md, one by one, on archives."""

from tests.launcher.layers.layer_kit import listing, normal_of_tar
from tests.launcher.layers.tar_bytes import END, folder, member, pax
from tools.launcher.layers.below import Below

F = member(data=b"x")
XATTR = b"SCHILY.xattr."


def normal(*members: bytes, below: Below | None = None) -> bytes:
    return normal_of_tar(b"".join(members) + END, below)


def test_the_root_is_the_same_for_all() -> None:
    """Whatever an archive says of it, since most say nothing, and a folder's top is whatever mkdir made it."""
    attributes = pax((XATTR + b"user.a", b"b"), (b"uid", b"7"))
    assert normal(F) == normal(folder(b"./"), F) == normal(attributes, member(b".", b"5", mode=b"0000700\0"), F)


def test_empty_layers_are_layers() -> None:
    assert list(listing(normal())) == ["./"]
    assert normal(bytes(5120)) == normal()


def test_a_whiteout_and_a_folder_of_its_name_are_an_opaque_folder() -> None:
    """In either order: what is below is gone, what this layer brings is there."""
    opaque = normal(folder(b"d"), member(b"d/.wh..wh..opq"), member(b"d/f"))
    assert normal(member(b".wh.d"), folder(b"d"), member(b"d/f")) == opaque
    assert normal(member(b"d/f"), folder(b"d"), member(b".wh.d")) == opaque
    assert normal(member(b".wh.d"), member(b"d/f")) == opaque
    assert normal(folder(b"d"), member(b"d/f")) != opaque


def test_a_whiteout_of_what_this_layer_brings_is_none() -> None:
    assert normal(member(b".wh.f"), F) == normal(F, member(b".wh.f")) == normal(F)
    assert normal(member(b".wh.g"), F) != normal(F)


def test_the_last_of_a_name_counts() -> None:
    last = member(data=b"last", mode=b"0000600\0")
    assert normal(F, last) == normal(last)
    # A link keeps what its target was.
    link = member(b"l", b"1", link=b"f")
    found = listing(normal(F, link, last))
    assert (found["f"].size, found["l"].size) == (4, 1)
    assert normal(folder(b"d"), member(b"d", b"5", mode=b"0000700\0")) == normal(member(b"d", b"5", mode=b"0000700\0"))


def test_a_hard_links_header_counts_for_the_file() -> None:
    """As engines have it: the last header's mode and owner; attributes add up, but a new owner ends capabilities."""
    capability = (XATTR + b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    file = [pax((XATTR + b"user.a", b"1"), capability), member(b"f", uid=b"0000001\0")]
    link = member(b"l", b"1", link=b"f", mode=b"0004755\0", uid=b"0000002\0")
    found = listing(normal(*file, link))
    assert (found["f"].mode, found["f"].uid) == (0o4755, 2)
    assert found["f"].pax_headers.keys() == {"SCHILY.xattr.user.a"}
    found = listing(normal(*file, pax(capability), link))
    assert found["f"].pax_headers.keys() == {"SCHILY.xattr.user.a", "SCHILY.xattr.security.capability"}
    assert normal(F, member(b"f", b"1", link=b"f")) == normal(F)


def test_times_are_whole_seconds_of_files_alone() -> None:
    """Rounded down; 0 for what does not fit, and for whatever is no file."""
    for text, seconds in ((b"1700000000.999999999", 1700000000), (b"-0.5", 0), (b"-7", 0), (b"8589934591", 8589934591),
                          (b"8589934592", 0), (b"0", 0)):  # fmt: skip
        found = listing(normal(pax((b"mtime", text)), F))
        assert found["f"].mtime == seconds
    for other in (folder(b"f"), member(b"f", b"2", link=b"x"), member(b"f", b"6")):
        assert normal(pax((b"mtime", b"1700000000")), other) == normal(other)


def test_which_attributes_are_kept() -> None:
    """Those of the host that unpacked it are not, nor what Linux would not hold."""
    for name in (b"security.selinux", b"security.ima", b"trusted.x", b"btrfs.compression", b"com.apple.quarantine"):
        assert normal(pax((XATTR + name, b"v")), F) == normal(F)
    assert normal(pax((XATTR + b"user.a", b"v")), F) != normal(F)
    symlink = member(b"s", b"2", link=b"x")
    assert normal(pax((XATTR + b"user.a", b"v")), symlink) == normal(symlink)
    capability = (XATTR + b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    assert normal(pax(capability), folder(b"d")) == normal(folder(b"d"))
    assert normal(pax(capability), F) != normal(F)


def test_attributes_in_libarchives_form_count_unless_there_are_others() -> None:
    plain = normal(pax((XATTR + b"user.a", b"v")), F)
    assert normal(pax((b"LIBARCHIVE.xattr.user.a", b"dg")), F) == plain
    assert normal(pax((b"LIBARCHIVE.xattr.user.%61", b"dg==")), F) == plain
    assert normal(pax((b"LIBARCHIVE.xattr.user.a", b"eA"), (XATTR + b"user.a", b"v")), F) == plain


def test_forms_of_names_are_one() -> None:
    """Plain, from the root, with dots, by pax, by GNU's long names, by a prefix; old folders by their slash."""
    plain = normal(member(b"a/b"))
    for other in (
        [member(b"/a/b")],
        [member(b"././a//./b")],
        [pax((b"path", b"a/b")), F],
        [member(b"@", b"L", b"a/b\0"), F],
        [member(b"b", prefix=b"a")],
        [member(b"a/b", magic=bytes(8))],
        [member(b"a/b", b"\0", magic=bytes(8))],
        [member(b"a/b", b"7")],
    ):
        assert listing(normal(*other)).keys() == listing(plain).keys()
    assert normal(member(b"d/", b"0", mode=b"0000755\0")) == normal(folder(b"d"))


def test_a_folder_without_an_entry_is_as_below() -> None:
    """What a file brings with it must not change the folder that it lies in."""
    sticky = member(b"tmp", b"5", mode=b"0001777\0", uid=b"0000005\0")
    file = member(b"tmp/f")

    def above(*layers: bytes) -> int | None:
        below = Below()
        for data in layers:
            normal(data, below=below)
        return listing(normal(file, below=below))["tmp/"].mode

    assert above() == 0o755
    assert above(sticky) == 0o1777
    assert above(sticky, member(b"x")) == 0o1777
    assert above(sticky, member(b"tmp/g")) == 0o1777
    assert above(sticky, folder(b"tmp")) == 0o755
    # It is not there any more.
    assert above(sticky, member(b".wh.tmp")) == 0o755
    assert above(sticky, member(b"tmp", b"2", link=b"x")) == 0o755


def test_an_opaque_folder_has_nothing_below_it() -> None:
    below = Below()
    normal(member(b"a/b", b"5", mode=b"0000700\0"), below=below)
    assert listing(normal(member(b"a/b/f"), below=below))["a/b/"].mode == 0o700
    normal(member(b"a/.wh..wh..opq"), below=below)
    assert listing(normal(member(b"a/b/f"), below=below))["a/b/"].mode == 0o755
