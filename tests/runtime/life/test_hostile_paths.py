# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Names that whoever calls the engine chose, and that lead where root should not follow. No guest is booted."""

import os
from pathlib import Path

import pytest

from tools.launcher.base.errors import UserError
from tools.runtime.life import boot
from tools.runtime.life.create import write_pid
from tools.runtime.life.folder import ContainerError
from tools.runtime.life.namespaces import enter_network


def test_a_link_in_a_pid_files_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".pid").symlink_to(victim)
    write_pid(tmp_path / "pid", 42)
    assert (victim.read_text(), (tmp_path / "pid").read_text()) == ("kept", "42")


@pytest.mark.parametrize(
    "name", ["/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/self/root/proc/self/ns/net", "link"]
)
def test_the_hosts_own_network_by_another_name(tmp_path: Path, name: str) -> None:
    """What would follow is that a guest gets every frame that the host should get."""
    (tmp_path / "link").symlink_to("/proc/self/ns/net")
    with pytest.raises(ContainerError, match="is the host's own"):
        enter_network(str(tmp_path / name))


def test_a_shared_folder_stays_the_one_that_was_allowed(tmp_path: Path) -> None:
    """A link that is put on the way after the check leads nowhere; nor does one that comes later still."""
    good, other = tmp_path / "good/inner", tmp_path / "other/inner"
    good.mkdir(parents=True)
    other.mkdir(parents=True)
    name = boot._shared(good)
    (tmp_path / "good").rename(tmp_path / "moved")
    (tmp_path / "good").symlink_to(tmp_path / "other")
    assert name.samefile(tmp_path / "moved/inner")
    with pytest.raises(UserError, match="is being moved"):
        boot._shared(good)
    os.close(int(name.name))
