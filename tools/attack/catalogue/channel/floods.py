# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Messages that the protocol allows, without end: they must cost the guest no memory that it does not give back.

A second process of an unbound guest says how much memory there is, before and after.
"""

import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.guests import agent, bound
from tools.attack.guests.agent import Guest
from tools.attack.guests.disks import plain
from tools.pipeline.base.errors import BuildError

_GROWTH = 8 << 10  # KiB; a page cache moves by a few, a frame that is kept costs 12 bytes and more
_FRAMES = 500_000
_BATCH = 20_000  # frames between two looks at what the guest says
_WORKLOAD = 1


def attempt(lab: Lab, target: Target, folder: Path, *, frame: bytes, frames: int = _FRAMES) -> Outcome:
    """Flood the guest. Success: it is gone, or its memory is."""
    with bound.guest(lab, target, folder, disk=plain(lab).data, document=None) as guest:
        guest.ready()
        guest.send(agent.SPAWN, _WORKLOAD, agent.spawn(b"sleep", b"100000"))
        _memory(guest, 2)  # what is read once stays in the page cache
        before = _memory(guest, 3)
        try:
            for _ in range(frames // _BATCH):
                guest.raw(frame * _BATCH)
            after = _memory(guest, 4)
        except (BrokenPipeError, ConnectionResetError):
            return Outcome(succeeded=True, guest="is gone")
    lost = before - after
    return Outcome(succeeded=lost > _GROWTH, guest=f"goes on; {max(0, lost)} KiB of {before >> 10} MiB are gone")


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The same host, who does not flood: the memory can be told, and stays."""
    outcome = attempt(lab, target, folder, frame=b"", frames=0)
    return Outcome(succeeded=not outcome.succeeded, guest=outcome.guest)


def attacks() -> Iterator[Attack]:
    """The rows."""
    header = struct.Struct("<BBHII")
    for name, host, frame in (
        ("stdin", "sends half a million empty pieces of standard input", header.pack(agent.STDIN, 0, 0, _WORKLOAD, 0)),
        (
            "window",
            "grants nothing half a million times",
            header.pack(agent.WINDOW, 0, 0, _WORKLOAD, 8) + struct.pack("<BBBBI", 1, 0, 0, 0, 0),
        ),
        (
            "resize",
            "changes the size of a terminal that is not there half a million times",
            header.pack(agent.RESIZE, 0, 0, _WORKLOAD, 4) + struct.pack("<HH", 24, 80),
        ),
        (
            "signal",
            "sends half a million signals that are ignored",
            header.pack(agent.SIGNAL, 0, 0, _WORKLOAD, 4) + struct.pack("<I", 17),
        ),
    ):
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, frame=frame),
            control=Honest(what="the same guest without a flood", attempt=honest),
            parts=frozenset({Part.AGENT}),
        )


def _memory(guest: Guest, process: int) -> int:
    """KiB that are free, or can be freed."""
    guest.send(agent.SPAWN, process, agent.spawn(b"cat", b"/proc/meminfo", flags=2))
    result = guest.hear(lambda heard: heard[process].over)[process]
    found = re.search(rb"MemAvailable: +(\d+) kB", result.out)
    if found is None:
        raise BuildError(f"the guest does not tell its memory: {result.out[:80]!r} {result.error}")
    return int(found[1])
