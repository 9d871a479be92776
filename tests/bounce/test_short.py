# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Bounce buffers under load, in short: the debug kernel, a pool that is too small for what goes through it at once.

All of it: whole.py, `./doit test_bounce`.
"""

from pathlib import Path

import pytest

from tests.bounce.machine import FORCED, SLOT, Machine


@pytest.fixture(scope="module")
def machine(qemu: Path, load: Path, debug_artifacts: Path) -> Machine:
    return Machine(qemu=qemu, kernel=debug_artifacts / "vmlinuz", initramfs=load)


def test_all_comes_back_from_a_small_pool(machine: Machine, tmp_path: Path) -> None:
    """Disk, network and port at once, without memory to spare: right to the last word, and no slot is lost."""
    wishes = {"disk": 160, "net": 40, "port": 2, "mtu": 1500, "pressure": 64}
    result = machine.run(tmp_path / "guest", wishes, pool=4, append=FORCED)
    assert result.troubles == [], result.log[-4000:]
    assert result.slots == (4 << 20) // SLOT
    assert result.disk >= 160 << 20
    assert result.network == 40 << 20
    assert result.port == 2 << 20
    # Much of it was in use at once, and it has not grown.
    assert result.most > result.slots // 2
    assert result.grown == 0


def test_a_slot_that_is_not_given_back_is_found(machine: Machine, tmp_path: Path) -> None:
    """A request that is never answered keeps its buffers, as a leak would."""
    result = machine.run(tmp_path / "guest", {"disk": 4, "hold": 1}, pool=4, append=FORCED, held=True)
    assert result.leaked > 0
    assert result.troubles == [f"{result.leaked} slots were not given back"]


def test_without_the_forced_dma_api_nothing_is_bounced(machine: Machine, tmp_path: Path) -> None:
    """Devices that do not ask for it: the pool is there, and kernel-patches/NNN/0001 decides whether it is used."""
    used = {
        append: machine.run(tmp_path / f"guest{len(append)}", {"disk": 4}, pool=4, append=append, platform=False)
        for append in ("", FORCED)
    }
    assert {append: result.troubles for append, result in used.items()} == {"": [], FORCED: []}
    assert used[""].slots == used[FORCED].slots > 0
    assert used[""].most == 0
    assert used[FORCED].most > 0
