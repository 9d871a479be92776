# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Descriptors of a queue that say, each of them, that another one follows.

A driver that believes them when a buffer comes back walks for ever, with interrupts off: the processor never returns,
and nothing panics (kernel-patches/6.12/0006). Chains here lie in the ring itself; `rings/table-endless` has the others.
"""

from collections.abc import Iterator
from functools import partial

from tools.attack.base.model import Attack, Part
from tools.attack.catalogue.devices.rings import HONEST, attempt
from tools.attack.vhost.lies.rings import LIES


def attacks() -> Iterator[Attack]:
    """One row."""
    yield Attack(
        name="direct",
        host="marks every descriptor as continued by another one, in chains that lie in the ring (vhost-user disk)",
        attempt=partial(attempt, kind=LIES["table-endless-direct"]),
        control=HONEST,
        parts=frozenset({Part.KERNEL}),
    )
