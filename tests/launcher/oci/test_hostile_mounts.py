# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What somebody may put where an engine's configuration points: ways out of what may be written to, endless files."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import captured, translated
from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.oci.settings import Settings

ROOT_ONLY = 0o711


def shared(source: Path | str, *writable: Path | str, target: str = "/data") -> Any:
    """A container with one writable folder of the host's."""
    value = captured("docker-26.1")
    value["mounts"].append({"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "rw"]})
    return translated(value, settings=Settings(writable=tuple(map(str, writable))))


def test_a_way_out_of_a_writable_folder_is_none(tmp_path: Path) -> None:
    """By a link that lies in it, and by "..": a folder inside of it is the control, also by way of a link to it."""
    (tmp_path / "open/inner").mkdir(parents=True)
    (tmp_path / "closed").mkdir()
    (tmp_path / "open/out").symlink_to(tmp_path / "closed")
    (tmp_path / "in").symlink_to(tmp_path / "open")
    for source in ("open", "open/inner", "in/inner"):
        done = shared(tmp_path / source, tmp_path / "open")
        assert [folder.source for folder in done.folders] == [(tmp_path / source).resolve()]
    assert shared(tmp_path / "open/inner", tmp_path / "in").folders
    for source in ("open/out", "closed"):
        with pytest.raises(UserError, match="the host would read and change"):
            shared(tmp_path / source, tmp_path / "open")
    with pytest.raises(UserError, match="the host would read and change"):
        shared(f"{tmp_path}/open/../closed", tmp_path / "open")


def test_a_volume_is_one_by_its_place_and_not_by_its_name(tmp_path: Path) -> None:
    """A folder that is called as the engine calls a volume's, below one that somebody else may change."""
    volume = tmp_path / "engine/volumes/named/_data"
    volume.mkdir(parents=True)
    assert shared(volume, "named").folders
    (tmp_path / "engine").chmod(0o777)
    with pytest.raises(UserError, match=r'writable = \["named"\]'):
        shared(volume, "named")
    (tmp_path / "engine").chmod(ROOT_ONLY)
    (volume.parent / "real").mkdir()
    volume.rmdir()
    volume.symlink_to(tmp_path)
    with pytest.raises(UserError, match=r'writable = \["named"\]'):
        shared(volume, "named")


def test_nothing_lies_in_a_folder_that_is_shared(tmp_path: Path) -> None:
    """The host could move it while the guest starts."""
    value = captured("docker-26.1")
    entry = {"destination": "/etc", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rw"]}
    value["mounts"].insert(0, entry)
    with pytest.raises(UserError, match="/etc/hostname lies in /etc, which is shared with the host"):
        translated(value, settings=Settings(writable=(str(tmp_path),)))


def test_a_supplied_file_is_a_file(tmp_path: Path) -> None:
    """Neither is a fifo waited for, nor a device read without end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(bytes(10))
    assert len(files.beginning(tmp_path / "file", 6, regular=True)) == 6
    for source in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=r"no regular file|Is a directory"):
            files.beginning(source, 6, regular=True)
        value = captured("docker-26.1")
        for mount in value["mounts"]:
            if mount["destination"] in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname"):
                mount["source"] = str(source)
        with pytest.raises(UserError, match=r"no regular file|Is a directory"):
            translated(value).files()
