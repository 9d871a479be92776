# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a document puts below a folder of the host's: a link in that folder must not lead it anywhere else."""

import tarfile
from pathlib import Path

import pytest

from tests.agent.conftest import Boot, bind, sh
from tests.agent.test_host_folders import archive, disk, share
from tools.attack.guests import agent as guest_kit
from tools.sev.workload.document import Document, HostFolder, SuppliedFile, Tar

OUTER, INNER = HostFolder(target="/mnt", length=1 << 16), "/mnt/inner"


def document(root: Tar, kind: str, outer: HostFolder = OUTER) -> Document:
    """Something below the host's folder."""
    return Document(
        root=root,
        process=sh("true"),
        folders=(outer, HostFolder(target=INNER, length=1 << 16)) if kind == "folder" else (outer,),
        files=(SuppliedFile(target=INNER, length=64),) if kind == "file" else (),
        masked_paths=(INNER,) if kind == "masked" else (),
        read_only_paths=(INNER,) if kind == "read-only" else (),
    )


def supplied(kind: str) -> tuple[tuple[int, bytes], ...]:
    return ((guest_kit.FILE, (0).to_bytes(4, "little") + guest_kit.counted(b"given\n")),) if kind == "file" else ()


@pytest.mark.parametrize("kind", ["file", "folder", "masked", "read-only"])
def test_a_link_below_which_the_document_puts_something(boot: Boot, root: Tar, tmp_path: Path, kind: str) -> None:
    """The guest ends before anything runs; with a file or folder of the host's in the link's place it starts."""
    bound = document(root, kind)
    second = disk(1, archive(tmp_path / "b.tar", ("data", tarfile.DIRTYPE, b""))) if kind == "folder" else []
    # What every image here has, of the right kind.
    target = "/bin" if kind == "folder" else "/bin/busybox"
    linked = archive(tmp_path / "linked.tar", ("data", tarfile.DIRTYPE, b""), ("data/inner", tarfile.SYMTYPE, target))
    with boot(binding=bind(bound), options=[*disk(0, linked), *second]) as guest:
        guest.bound(bound.data, *supplied(kind))
        said = guest.last_words()
    assert said is not None
    assert "/mnt/inner: lies in /mnt, where a link of the host's leads elsewhere" in said[1]
    plain = archive(
        tmp_path / "plain.tar",
        ("data", tarfile.DIRTYPE, b""),
        ("data/inner", tarfile.DIRTYPE if kind == "folder" else tarfile.REGTYPE, b""),
    )
    with boot(binding=bind(bound), options=[*disk(0, plain), *second]) as guest:
        guest.bound(bound.data, *supplied(kind)).expect(guest_kit.READY)


def test_nothing_is_put_into_a_folder_that_the_host_still_changes(
    boot: Boot, root: Tar, tmp_path: Path, kata_artifacts: Path
) -> None:
    (tmp_path / "inner").write_bytes(b"")
    bound = document(root, "file", HostFolder(target="/mnt", write=True))
    with boot(binding=bind(bound), options=share(0, tmp_path), kernel=kata_artifacts / "vmlinuz") as guest:
        guest.bound(bound.data, *supplied("file"))
        said = guest.last_words()
    assert said is not None
    assert "/mnt/inner: lies in /mnt, which is shared with the host" in said[1]
