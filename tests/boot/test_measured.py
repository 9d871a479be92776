# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The firmware starts nothing but what the hashes table names: every attack of tools/attack/catalogue/boot/.

Emulated: QEMU's loader device puts the table where QEMU itself writes it for a protected guest. That the table is part
of the launch digest, only SEV hardware shows; what the firmware does with it is the same here. `./doit attack` shows
each of these beside firmware that lacks the defence.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attempt
from tools.attack.catalogue.boot import blobs, table
from tools.attack.catalogue.boot.blobs import Change
from tools.attack.guests.firmware import Became, Host, stays


def outcomes(lab: Lab, folder: Path, attempts: Mapping[str, Attempt]) -> dict[str, str]:
    """What became of each, two guests at a time: all of them under the same load."""
    for name in attempts:
        (folder / name).mkdir()
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = [pool.submit(attempt, lab, lab.own, folder / name) for name, attempt in attempts.items()]
        return {name: future.result().guest for name, future in zip(attempts, found, strict=True)}


@pytest.mark.parametrize("module", [blobs, table], ids=["blobs", "table"])
def test_nothing_else_starts(lab: Lab, module: object, tmp_path: Path) -> None:
    attempts = {attack.name: attack.attempt for attack in module.attacks()}  # type: ignore[attr-defined]  # a module
    assert len(attempts) > 10
    found = outcomes(lab, tmp_path, attempts)
    assert found == dict.fromkeys(attempts, Became.REFUSED)


def test_what_the_table_names_starts(lab: Lab, tmp_path: Path) -> None:
    """Unchanged, in flash, and under tables with the same hashes: entries are found by GUID, and a table's length may
    say more than there is. Such a table has another launch digest, and still binds each blob."""

    def in_order(_: Lab, host: Host) -> Host:
        return table.with_table(host, table.entries(host.table))

    def reordered(_: Lab, host: Host) -> Host:
        return table.with_table(host, table.entries(host.table)[::-1])

    def longer(_: Lab, host: Host) -> Host:
        return table.with_table(host, table.entries(host.table), length=0x400)

    def word_more(_: Lab, host: Host) -> Host:
        return replace(longer(_, host), cmdline=f"{host.cmdline} x")

    changes: dict[str, Change] = {
        "unchanged": lambda _, host: host,
        "in order": in_order,
        "reordered": reordered,
        "longer": longer,
    }
    attempts: dict[str, Attempt] = {name: partial(blobs.attempt, change=change) for name, change in changes.items()}
    attempts["in flash"] = partial(blobs.attempt, change=changes["unchanged"], flash=True)
    attempts["longer, a word more"] = partial(blobs.attempt, change=word_more)
    found = outcomes(lab, tmp_path, attempts)
    assert found == dict.fromkeys(attempts, Became.BOOTED) | {"longer, a word more": Became.REFUSED}


@pytest.mark.parametrize(
    ("step", "seconds", "verdict"),
    [
        (0, 0.05, True),
        (8, 0.05, False),  # code that goes on
        (0, 0.0, False),  # a machine so busy that QEMU does not run
        (0, 0.001, False),  # … or hardly
    ],
)
def test_only_used_processor_time_makes_a_dead_loop(step: int, seconds: float, verdict: bool) -> None:
    """The judge itself: one place for long enough, by QEMU's own clock."""
    samples: deque[tuple[int, float]] = deque()
    for i in range(40):
        samples.append((0x1F00_0000 + i * step, i * seconds))
        found = stays(samples)
    assert found is verdict
