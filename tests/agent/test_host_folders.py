# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of the host's in a booted guest: archives on disks of their own, in bounds whatever is in them."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.agent.conftest import Boot, bind, sh
from tools.attack.guests import agent as guest_kit
from tools.sev.workload.document import Document, HostFolder, Tar

Member = tuple[str, bytes, bytes | str]
"""Name, type of the member, and content or what a link leads to."""


def archive(target: Path, *members: Member, mode: int = 0o755) -> Path:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as stream:
        for name, kind, what in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            if isinstance(what, str):
                member.linkname = what
                stream.addfile(member)
            else:
                member.size = len(what)
                stream.addfile(member, io.BytesIO(what))
    return target


def disk(number: int, path: Path) -> list[str]:
    """QEMU's options for it."""
    device = f"virtio-blk-pci,drive=folder{number},serial=folder{number},iommu_platform=on,disable-legacy=on"
    return ["-drive", f"if=none,id=folder{number},readonly=on,format=raw,file={path}", "-device", device]


def words(boot: Boot, document: Document, options: Sequence[str]) -> tuple[int, str]:
    """The agent's last words where it does not get as far as READY."""
    with boot(binding=bind(document), options=options) as guest:
        guest.bound(document.data)
        said = guest.last_words()
    assert said is not None
    return said


def test_a_folder_and_a_file(boot: Boot, root: Tar, tmp_path: Path) -> None:
    """At a target that is there and at one that is not; read-only for root, too, and no device opens."""
    script = (
        "cat /data/fixed/hello /etc/deep/er/conf; /data/fixed/run; ls /data/fixed; cat /data/fixed/link;"
        "touch /data/fixed/new; echo x > /etc/deep/er/conf; mount -o remount,rw /data/fixed;"
        "head -c 1 /data/fixed/zero; grep -c -e ' /data/fixed ro,nosuid,nodev' -e ' /etc/deep/er/conf ro,nosuid,nodev'"
        " /proc/self/mountinfo"
    )
    folder = archive(
        tmp_path / "folder.tar",
        ("data", tarfile.DIRTYPE, b""),
        ("data/hello", tarfile.REGTYPE, b"hello\n"),
        ("data/run", tarfile.REGTYPE, b"#!/bin/sh\necho runs\n"),
        ("data/link", tarfile.SYMTYPE, "hello"),
        ("data/zero", tarfile.CHRTYPE, b""),
        ("beside", tarfile.REGTYPE, b"not seen"),
    )
    file = archive(tmp_path / "file.tar", ("data", tarfile.REGTYPE, b"one file\n"))
    document = Document(
        root=root,
        process=sh(script),
        folders=(
            HostFolder(target="/data/fixed", length=1 << 16),
            HostFolder(target="/etc/deep/er/conf", length=1 << 16),
        ),
    )
    with boot(binding=bind(document), options=[*disk(0, folder), *disk(1, file)]) as guest:
        guest.bound(document.data).expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
    assert result.out == b"hello\none file\nruns\nhello\nlink\nrun\nzero\nhello\n2\n", result
    assert result.err.count(b"Read-only file system") == 2
    assert result.err.lower().count(b"permission denied") == 2


HOSTILE: dict[str, tuple[tuple[Member, ...], str]] = {
    "no-data": ((("other", tarfile.REGTYPE, b"x"),), "no data in the archive"),
    "link": ((("data", tarfile.SYMTYPE, "/proc"),), "neither a folder nor a file"),
    "device": ((("data", tarfile.CHRTYPE, b""),), "neither a folder nor a file"),
    "parent": ((("../data", tarfile.REGTYPE, b"x"),), ".. component"),
    "out-by-link": (
        (
            ("data", tarfile.DIRTYPE, b""),
            ("data/x", tarfile.SYMTYPE, "/proc"),
            ("data/x/version", tarfile.REGTYPE, b"x"),
        ),
        "tar: data/x/version",
    ),
    "too-large": ((("data", tarfile.REGTYPE, bytes(1 << 18)),), "No space left"),
    "too-many": (
        (("data", tarfile.DIRTYPE, b""), *((f"data/{n}", tarfile.REGTYPE, b"") for n in range(200))),
        "No space left",
    ),
    "a-folder-for-a-file": ((("data", tarfile.DIRTYPE, b""),), "mount"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_hostile_archive_does(boot: Boot, root: Tar, tmp_path: Path, case: str) -> None:
    """Each ends the guest with a line that says why, before anything runs. The control is the test above."""
    members, said = HOSTILE[case]
    target = "/data/secret" if case == "a-folder-for-a-file" else "/mnt"
    document = Document(root=root, process=sh("true"), folders=(HostFolder(target=target, length=1 << 16),))
    code, text = words(boot, document, disk(0, archive(tmp_path / "a.tar", *members)))
    assert code == 4
    assert target in text
    assert said in text


def test_a_folder_that_the_host_does_not_give(boot: Boot, root: Tar) -> None:
    document = Document(root=root, process=sh("true"), folders=(HostFolder(target="/mnt", length=1 << 16),))
    code, text = words(boot, document, [])
    assert code == 4
    assert "disk with serial folder0" in text


def test_a_share_takes_a_kernel_that_has_them(boot: Boot, root: Tar, tmp_path: Path) -> None:
    """The production profile's has none, whatever its host offers."""
    document = Document(root=root, process=sh("true"), folders=(HostFolder(target="/mnt", write=True),))
    code, text = words(boot, document, share(0, tmp_path))
    assert code == 2
    assert "/mnt: is to be shared with the host, and this guest's kernel has no 9p" in text


def share(number: int, path: Path) -> list[str]:
    device = f"virtio-9p-pci,fsdev=folder{number},mount_tag=folder{number},iommu_platform=on,disable-legacy=on"
    return ["-fsdev", f"local,id=folder{number},path={path},security_model=none", "-device", device]


def test_a_share_with_a_kernel_that_has_them(boot: Boot, root: Tar, tmp_path: Path, kata_artifacts: Path) -> None:
    """Both sides see what the other writes; devices and set-uid programs of the host's mean nothing."""
    script = (
        "cat /mnt/deep/given; echo made > /mnt/deep/made; ls /mnt/deep;"
        "grep ' /mnt/deep ' /proc/self/mountinfo | grep -c nosuid,nodev"
    )
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "given").write_bytes(b"from here\n")
    document = Document(root=root, process=sh(script), folders=(HostFolder(target="/mnt/deep", write=True),))
    with boot(binding=bind(document), options=share(0, shared), kernel=kata_artifacts / "vmlinuz") as guest:
        guest.bound(document.data).expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
    assert result.out == b"from here\ngiven\nmade\n1\n", result
    assert (shared / "made").read_bytes() == b"made\n"
