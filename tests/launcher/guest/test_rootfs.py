# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""--rootfs: what is detected, what is packed, what is refused; --verity superblocks."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import socket
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.launcher.base.errors import UserError
from tools.launcher.channel.protocol import RootKind
from tools.launcher.guest import rootfs
from tools.launcher.guest.verity import read_verity


def erofs_header(*, blocks: int, bits: int = 12) -> bytes:
    head = bytearray(max(4096, blocks << bits))
    struct.pack_into("<I", head, 1024, 0xE0F5E1E2)
    head[1024 + 12] = bits
    struct.pack_into("<I", head, 1024 + 36, blocks)
    return bytes(head)


def superblock(**changes: object) -> bytes:
    fields = {
        "magic": b"verity\0\0",
        "version": 1,
        "type": 1,
        "uuid": bytes(16),
        "algorithm": b"sha256",
        "data": 4096,
        "hash": 4096,
        "blocks": 4,
        "size": 4,
        "salt": b"\x01\x02\x03\x04",
    } | changes
    return struct.pack("<8sII16s32sIIQH6x256s", *fields.values()).ljust(4096, b"\0")


def erofs_with_verity(path: Path, **changes: object) -> Path:
    path.write_bytes(erofs_header(blocks=4) + superblock(**changes) + bytes(4096))
    return path


def prepare(source: Path, tmp_path: Path) -> tuple[rootfs.Rootfs, list[str]]:
    notes: list[str] = []
    into = tmp_path / "into"
    into.mkdir()
    return rootfs.prepare(source, into=into, memory_mib=512, note=notes.append), notes


def tar_bytes(tmp_path: Path, kind: int = tarfile.PAX_FORMAT) -> bytes:
    path = tmp_path / "made.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        archive.addfile(tarfile.TarInfo("etc"))
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_taken_as_it_is(tmp_path: Path, kind: int) -> None:
    source = tmp_path / "x"
    source.write_bytes(tar_bytes(tmp_path, kind))
    image, _ = prepare(source, tmp_path)
    assert (image.path, image.kind, image.length) == (source, RootKind.TAR, source.stat().st_size)


def _gzip(data: bytes) -> bytes:
    """The same bytes at any time: names of tests have them."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_compressed_tars_are_decompressed(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    source, plain = tmp_path / "x", tar_bytes(tmp_path)
    source.write_bytes(compress(plain))
    image, _ = prepare(source, tmp_path)
    assert image.path.read_bytes() == plain
    assert image.kind is RootKind.TAR


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"no image at all" + bytes(600), "neither a tar nor an EROFS image"),
        (b"PK\x03\x04" + bytes(600), "is a zip archive, neither a tar nor an EROFS image"),
        (b"070701" + bytes(600), "is a cpio archive"),
        (b"XFSB" + bytes(600), "is an XFS image"),
        (b"QFI\xfb" + bytes(600), "is a qcow2 disk"),
        (bytes(1080) + b"\x53\xef" + bytes(4096), "is an ext2, ext3 or ext4 image.*make an EROFS image"),
        (bytes(32769) + b"CD001" + bytes(4096), "is an ISO 9660 image"),
        (bytes(65600) + b"_BHRfS_M" + bytes(4096), "is a btrfs image"),
        (bytes(446) + b"\x80" + bytes(65) + b"EFI PART" + bytes(4096), "is a disk with partitions"),
        (bytes(10240), "has no members: an empty archive, or a zeroed file"),
        (bytes(1 << 20), "has no members"),
        (_gzip(bytes(10240)), r"x \(decompressed\): has no members"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "run `zstd -d` on it first"),
        (b"hsqs" + bytes(600), "a squashfs image"),
        (_gzip(b"no tar"), "neither a tar nor"),
        (_gzip(bytes(5000))[:-9], "cannot be decompressed"),
        (_gzip(random.Random(1).randbytes(5000))[:40] + b"\xff" * 900, "cannot be decompressed"),
        (_gzip(bytes(5000))[:10] + b"\xff" * 900, "cannot be decompressed"),
        (_gzip(bytes(5000))[:-4] + b"abcd", "cannot be decompressed"),
        (lzma.compress(bytes(5000))[:-9], "cannot be decompressed"),
        (bz2.compress(bytes(5000))[:12] + b"spoiltspoilt", "cannot be decompressed"),
    ],
)
def test_refused_files(tmp_path: Path, content: bytes, words: str) -> None:
    source = tmp_path / "x"
    source.write_bytes(content)
    with pytest.raises(UserError, match=words):
        prepare(source, tmp_path)


def test_refused_kinds_of_files(tmp_path: Path) -> None:
    for source in ("/dev/zero", "/dev/tty"):
        with pytest.raises(UserError, match="takes a directory"):
            rootfs.prepare(Path(source), into=tmp_path, memory_mib=512, note=print)
    with pytest.raises(UserError, match=r"missing: No such file"):
        prepare(tmp_path / "missing", tmp_path / "..")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_pipe_is_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    plain = tar_bytes(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "data").open("wb") as stream:
        stream.write(compress(plain))
    with subprocess.Popen(["sh", "-c", f"cat {tmp_path}/data >{tmp_path}/fifo"]):
        image, _ = prepare(tmp_path / "fifo", tmp_path)
    assert image.path.read_bytes() == plain
    assert (image.kind, image.length) == (RootKind.TAR, len(plain))


def archive(path: Path, *members: tarfile.TarInfo | str, kind: int = tarfile.GNU_FORMAT) -> Path:
    """A tar with these members, whose contents are zeros; a name alone is an empty file."""
    with tarfile.open(path, "w", format=kind) as tar:
        for member in members:
            made = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            tar.addfile(made, io.BytesIO(bytes(made.size)))
    return path


def info(name: str, *, kind: bytes = tarfile.REGTYPE, pax: dict[str, str] | None = None) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.pax_headers = kind, pax or {}
    return made


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([info("label", kind=b"V"), "etc"], "has a volume label; make it without tar's --label"),
        ([info("half", kind=b"M"), "etc"], "begins in another volume"),
        ([info("holes", kind=b"S"), "etc"], "has a sparse member, 'holes'; make it without tar's --sparse"),
        ([info("etc", pax={"GNU.sparse.major": "1"})], "has a sparse member, 'etc'"),
        (["manifest.json", "repositories", "0a/layer.tar"], "holds the layers of an image.*docker export"),
        (["oci-layout", "index.json", "blobs/sha256/aa"], "holds the layers of an image"),
    ],
)
def test_archives_that_the_guest_would_refuse(tmp_path: Path, members: list[tarfile.TarInfo | str], words: str) -> None:
    pax = any(isinstance(member, tarfile.TarInfo) and member.pax_headers for member in members)
    source = archive(tmp_path / "x.tar", *members, kind=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)
    with pytest.raises(UserError, match=words):
        prepare(source, tmp_path)
    # Control: what is no root file system only by one member's type or name is one without it.
    archive(source, *(m if isinstance(m, str) else info(m.name) for m in members), "bin/sh", "usr/lib")
    assert rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print).kind is RootKind.TAR


def test_tars_of_the_real_program(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    with (tmp_path / "root/etc/holes").open("wb") as stream:
        stream.truncate(1 << 20)
        stream.seek(1 << 19)
        stream.write(b"x")
    long = tmp_path / "root" / ("n" * 200)
    long.write_bytes(b"y" * 777)
    os.link(long, tmp_path / "root/link")
    for flags, words in (
        (["--sparse"], "sparse member"), (["--sparse", "--format=pax"], "sparse member"),
        (["--label=x"], "volume label"), ([], None), (["--format=pax"], None), (["--format=gnu"], None),
    ):  # fmt: skip
        source = tmp_path / "x.tar"
        subprocess.run(["tar", "-cf", source, *flags, "-C", tmp_path / "root", "."], check=True)
        if words is None:
            assert rootfs.prepare(source, into=tmp_path, memory_mib=128, note=print).path == source
            continue
        with pytest.raises(UserError, match=words):
            rootfs.prepare(source, into=tmp_path, memory_mib=128, note=print)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_root_that_does_not_fit_into_the_ram(tmp_path: Path, kind: int) -> None:
    big = tarfile.TarInfo("x" * 150)
    big.size = 65 << 20
    source = archive(tmp_path / "x.tar", "etc", big, kind=kind)
    with pytest.raises(UserError, match=r"unpacked it has 65 MiB, a guest with 128 MiB of RAM holds 64; --memory 384M"):
        rootfs.prepare(source, into=tmp_path, memory_mib=128, note=print)
    assert rootfs.prepare(source, into=tmp_path, memory_mib=256, note=print).kind is RootKind.TAR
    root = tmp_path / "root"
    root.mkdir()
    (root / "zeros").write_bytes(bytes(65 << 20))
    with pytest.raises(UserError, match="--memory 384M"):
        rootfs.prepare(root, into=tmp_path, memory_mib=128, note=print)


@pytest.mark.parametrize("cut", [512, 700, -1024])
def test_a_tar_that_ends_early(tmp_path: Path, cut: int) -> None:
    member = tarfile.TarInfo("etc/file")
    member.size = 3000
    source = archive(tmp_path / "x.tar", member)
    whole = source.read_bytes()[: 512 + 3072 + 1024]
    source.write_bytes(whole[:cut])
    with pytest.raises(UserError, match="ends before its end mark"):
        prepare(source, tmp_path)
    source.write_bytes(whole[:600] + b"damaged" * 100 + whole[1300:])
    assert rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print)  # contents are nobody's business here
    source.write_bytes(whole[: 512 + 3072] + b"junk" * 128 + bytes(1024))
    with pytest.raises(UserError, match="is damaged: no header at byte 3584"):
        rootfs.prepare(source, into=tmp_path, memory_mib=512, note=print)


def test_names_are_bytes_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ISO-8859-1 Python reads the bytes of "ü" as two letters."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "Ã¼").write_bytes(b"")
    (root / "link").symlink_to("Ã¼")
    os.link(root / "Ã¼", root / "other")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsencode", lambda name: os.fspath(name).encode("latin-1", "surrogateescape"))
        rootfs.pack_directory(root, tmp_path / "x.tar", note=lambda _: None)
    with tarfile.open(tmp_path / "x.tar", encoding="utf-8") as tar:
        members = {member.name: member for member in tar}
    assert set(members) == {".", "./ü", "./link", "./other"}
    assert members["./link"].linkname == "ü"
    linked = [member for member in members.values() if member.islnk()]
    assert [members[member.linkname].islnk() for member in linked] == [False]


def test_a_directory_becomes_a_sorted_tar(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"tool")
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "b").write_bytes(b"b")
    os.link(root / "b", root / "c")
    (root / "a").symlink_to("/usr/bin/tool")
    (root / ("n" * 200)).write_bytes(b"")
    os.mkfifo(root / "fifo")
    (tmp_path / "link").symlink_to(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        image, notes = prepare(tmp_path / "link", tmp_path)
    with tarfile.open(image.path) as archive:
        members = {member.name: member for member in archive}
    names = list(members)
    assert names[0] == "."
    assert [n for n in names if n.count("/") == 1] == [
        f"./{n}" for n in sorted(["a", "b", "c", "fifo", "n" * 200, "usr"])
    ]
    assert members["./usr/bin/tool"].mode == 0o4755
    assert members["./c"].islnk()
    assert members["./a"].linkname == "/usr/bin/tool"
    assert members["./fifo"].isfifo()
    assert members["./b"].uid == root.stat().st_uid
    assert members["./b"].uname == ""
    assert len(notes) == 1
    assert "socket left out" in notes[0]


def test_the_same_directory_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in range(2):
        root = tmp_path / f"root{attempt}"
        root.mkdir()
        names = [f"f{i}" for i in range(50)]
        for name in names if attempt else reversed(names):
            (root / name).write_text(name)
            os.utime(root / name, (1, 1.5))
        os.utime(root, (1, 1))
        target = tmp_path / f"t{attempt}.tar"
        rootfs.pack_directory(root, target, note=lambda _: None)
        digests.add(hashlib.sha256(target.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_list_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for i in range(5):
        (root / str(i)).touch()
    monkeypatch.setattr(rootfs, "ENTRIES_MAX", 6)
    rootfs.pack_directory(root, tmp_path / "fits.tar", note=lambda _: None)
    monkeypatch.setattr(rootfs, "ENTRIES_MAX", 5)
    with pytest.raises(UserError, match="more than 5 files"):
        rootfs.pack_directory(root, tmp_path / "no.tar", note=lambda _: None)


def test_other_file_systems_and_the_launchers_own_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="own run folder"):
        prepare(tmp_path, tmp_path)
    seen: list[str] = []
    # "/" itself comes first and looks at every entry of the root folder; nothing below is walked.
    walk = rootfs._walk(Path("/"), note=seen.append)
    assert [next(walk)[1], next(walk)[1].count("/")] == [".", 1]
    assert any(note.startswith("/proc: another file system") for note in seen)


def test_deep_tree(tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = root
    for _ in range(200):
        path /= "d"
    path.mkdir(parents=True)
    target = tmp_path / "t.tar"
    rootfs.pack_directory(root, target, note=lambda _: None)
    with tarfile.open(target) as archive:
        assert len(archive.getnames()) == 201


def test_verity_superblock(tmp_path: Path) -> None:
    found = read_verity(erofs_with_verity(tmp_path / "x"), root_hash="ab" * 32)
    assert found.cmdline == f"sev_agent.verity={'ab' * 32}:01020304:4"
    found = read_verity(erofs_with_verity(tmp_path / "y", size=0), root_hash="ab" * 32)
    assert found.cmdline == f"sev_agent.verity={'ab' * 32}:-:4"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": b"veritx\0\0"}, "no verity superblock"),
        ({"version": 2}, "superblock version 2"),
        ({"type": 0}, "hash type 0"),
        ({"algorithm": b"sha512"}, "algorithm sha512"),
        ({"data": 1024}, "data block size 1024"),
        ({"hash": 512}, "hash block size 512"),
        ({"blocks": 3}, "number of data blocks 3"),
        ({"size": 257}, "salt of 257 bytes"),
    ],
)
def test_refused_superblocks(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_verity(erofs_with_verity(tmp_path / "x", **changes), root_hash="ab" * 32)


def test_refused_verity_images(tmp_path: Path) -> None:
    image = erofs_with_verity(tmp_path / "x")
    for bad in ("", "ab" * 31, "AB" * 32, "zz" * 32):
        with pytest.raises(UserError, match="root hash"):
            read_verity(image, root_hash=bad)
    for content, words in (
        (tar_bytes(tmp_path), "this is none"),
        (erofs_header(blocks=4), "no hash tree"),
        (erofs_header(blocks=4) + superblock(), "no hash tree"),
        (erofs_header(blocks=3, bits=9) + bytes(20000), "no multiple of 4096"),
        (erofs_header(blocks=1, bits=16), "2.16-byte blocks"),
        (erofs_header(blocks=0), "no multiple of 4096"),
    ):
        image.write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_verity(image, root_hash="ab" * 32)


def test_verity_of_the_real_tools(tmp_path: Path, host_tool: Callable[[str], Path]) -> None:
    root, image = tmp_path / "root", tmp_path / "image"
    root.mkdir()
    (root / "file").write_bytes(os.urandom(100_000))
    subprocess.run([host_tool("mkfs.erofs"), image, root], check=True, capture_output=True)
    size = image.stat().st_size
    words: list[str | Path] = [
        host_tool("veritysetup"),
        "format",
        f"--hash-offset={size}",
        "--salt=0badcafe",
        image,
        image,
    ]
    answer = subprocess.run(words, check=True, capture_output=True).stdout.decode()
    root_hash = answer.split("Root hash:")[1].split()[0]
    found = read_verity(image, root_hash=root_hash)
    assert (found.salt, found.data_blocks) == ("0badcafe", size // 4096)
    (tmp_path / "into").mkdir()
    assert rootfs.prepare(image, into=tmp_path / "into", memory_mib=512, note=print).kind is RootKind.EROFS
