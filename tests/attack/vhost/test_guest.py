# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped guest on a disk that this project's own backend serves: honest, and not."""

from pathlib import Path

import pytest

from tools.attack.base.lab import Lab
from tools.attack.catalogue.devices import data, hotplug, rings, serial, unknown
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.lies import LIES
from tools.attack.vhost.play import DECIDE, RIGHT, Lie, Play, play
from tools.pipeline.base.errors import BuildError


@pytest.mark.parametrize("verity", [True, False])
def test_the_honest_disk(lab: Lab, tmp_path: Path, verity: bool) -> None:
    seen = play(lab, lab.own, tmp_path, Play(lies=[Lie(kind=Disk)], verity=verity))
    assert (seen.status, seen.output, seen.told) == (0, RIGHT, (0,)), seen.said


def test_a_lie_is_believed_without_verity_only(lab: Lab, tmp_path: Path) -> None:
    for verity in (True, False):
        folder = tmp_path / str(verity)
        folder.mkdir()
        made = data.attempt(lab, lab.own, folder, kind=LIES["other-sectors"], script=DECIDE, verity=verity)
        assert made.succeeded is not verity, made.guest


def test_a_lie_that_was_not_told_is_no_result(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the lie was not told: DENIED"):
        rings.attempt(lab, lab.own, tmp_path, kind=Disk)


def test_a_guest_that_waits_for_its_disk_is_told_from_one_that_is_dead(lab: Lab, tmp_path: Path) -> None:
    seen = play(lab, lab.own, tmp_path, Play(lies=[Lie(kind=LIES["never-answers"])]))
    assert (seen.status, seen.alive, seen.output) == (None, True, "")
    assert seen.became == "no output; the read never ends, the guest lives"


def test_devices_that_are_not_there_are_noticed(lab: Lab, tmp_path: Path) -> None:
    """A row that finds no driver has seen the device."""
    made = unknown.honest(lab, lab.own, tmp_path)
    assert made.succeeded, made.guest
    with pytest.raises(BuildError, match=r"no output; the guest ended|QEMU|status"):
        unknown.attempt(lab, lab.own, tmp_path, more=[("-device", "no-such-device")])


def test_a_host_that_does_nothing(lab: Lab, tmp_path: Path) -> None:
    made = hotplug.honest(lab, lab.own, tmp_path)
    assert made.succeeded, made.guest


def test_the_evil_twin_reaches_the_guest(lab: Lab, tmp_path: Path) -> None:
    """A message that QEMU never sent removes the agent's port; the same twin without it changes nothing."""
    for name in ("removed", "nothing"):
        (tmp_path / name).mkdir()
    removes, _ = serial._ROWS["control-port-removed"]
    assert serial.attempt(lab, lab.own, tmp_path / "removed", does=removes).guest == "the guest ended"
    assert serial.attempt(lab, lab.own, tmp_path / "nothing", does=None).guest == RIGHT
