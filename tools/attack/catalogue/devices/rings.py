# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that breaks the rules of its rings: identities, lengths, indices, interrupts, descriptors rewritten later.

The data are right in all of them. What the host wants is that the guest takes wrong data, that its kernel stumbles,
or that its processor never comes back.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.lies import LIES
from tools.attack.vhost.play import DECIDE, RIGHT, WRONG, Lie, Play, Seen, play
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.KERNEL, Part.AGENT})
# What a kernel says that has noticed damage in itself (lib/bug.c, mm/slub.c, lib/list_debug.c, mm/page_alloc.c).
# A WARNING is none: it says that the kernel met a value which it then refused.
_DAMAGE = ("BUG", "Oops", "corruption", "Bad page")
_GREP = " ".join(f"-e '{word}'" for word in (*_DAMAGE, "WARNING:"))
SCRIPT = f"{DECIDE}; dmesg | grep {_GREP}; true"
_SAYS = {
    "length-huge": "completes reads with a used length of 4 GiB",
    "length-zero": "completes reads with a used length of 0, though it wrote the data",
    "id-beyond-the-table": "completes a descriptor beyond the table",
    "id-huge": "completes descriptor 4,294,967,295",
    "id-never-given": "completes a descriptor that it was never given",
    "completed-twice": "completes a read twice",
    "index-ahead": "sets the used index half a ring ahead",
    "index-far-ahead": "sets the used index 32,768 ahead",
    "index-back": "sets the used index back",
    "interrupt-storm": "interrupts 10,000 times without a completion",
    "never-answers": "never answers a read",
    "hangs-up": "disappears in the middle of a read",
    "table-addresses": "rewrites addresses and lengths in descriptors that it was given",
    "table-merged": "marks a descriptor as continued by another one that is not part of the request",
    "table-merged-direct": "does so in chains of which each part lies in the ring",
    "table-cut": "takes the marks of continuation out of the descriptors that it was given",
    "table-cut-direct": "does so in chains of which each part lies in the ring",
    "table-endless": "marks every descriptor as continued by another one",
}
_SHORT = {"id-beyond-the-table"}


def outcome(seen: Seen) -> Outcome:
    """What the host got."""
    hangs = seen.status is None and not seen.alive
    damage = any(word in seen.output for word in _DAMAGE)
    return Outcome(succeeded=WRONG in seen.output or hangs or damage, guest=seen.became)


def attempt(lab: Lab, target: Target, folder: Path, *, kind: type[Disk]) -> Outcome:
    """Behind dm-verity."""
    seen = play(lab, target, folder, Play(lies=[Lie(kind=kind)], script=SCRIPT))
    if not seen.told[0]:
        raise BuildError(f"the lie was not told: {seen.became}")
    return outcome(seen)


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The same device, which tells the truth; once for all rows."""

    def run() -> Seen:
        return play(lab, target, folder, Play(lies=[Lie(kind=Disk)], script=SCRIPT))

    seen = lab.once(f"honest vhost-user disk, {target.name}", run)
    return Outcome(succeeded=seen.status == 0 and seen.output == RIGHT, guest=seen.became)


HONEST = Honest(what="the same device, honest", attempt=honest)


def attacks() -> Iterator[Attack]:
    """One for each lie."""
    for name, host in _SAYS.items():
        yield Attack(
            name=name,
            host=f"{host} (vhost-user disk)",
            attempt=partial(attempt, kind=LIES[name]),
            control=HONEST,
            parts=_PARTS,
            short=name in _SHORT,
        )
