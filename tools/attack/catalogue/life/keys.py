# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Keys that a kernel obeys whatever runs: typed at the keyboard that each of QEMU's PCs has."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.guests import watcher
from tools.attack.guests.machine import Machine, Setup
from tools.attack.undefended.kernel import debian

_DEBIAN = Undefended(what="Debian's kernel", target=debian)


def attempt(lab: Lab, target: Target, folder: Path, *, keys: str) -> Outcome:
    """Type; the attack wants the kernel to do something about it."""
    with Machine(lab, watcher.watched(lab, target), folder, Setup(options=("-no-shutdown",))) as machine:
        watcher.await_it(machine)
        for _ in range(3):
            machine.monitor.human(f"sendkey {keys}")
            time.sleep(0.2)  # longer than QEMU holds a key, so that each is pressed alone
        why = watcher.ended(machine)
        return Outcome(succeeded=why is not None, guest=f"it stopped: {why}" if why else "goes on")


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, keys, what in (
        ("ctrl-alt-del", "ctrl-alt-delete", "types Ctrl-Alt-Del, at which a kernel restarts"),
        ("sysrq", "alt-sysrq-b", "types SysRq and b, at which a kernel restarts without further ado"),
    ):
        yield Attack(
            name=name,
            host=what,
            attempt=partial(attempt, keys=keys),
            control=_DEBIAN,
            parts=frozenset({Part.KERNEL}),
            reach=Reach.KERNEL,
        )
