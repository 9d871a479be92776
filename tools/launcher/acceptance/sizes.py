# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The secure processor's time for a page, by the difference between sizes.

Every page of the firmware's file is encrypted and measured at a launch. The same guest is started with its firmware as
it is and with ones in front of it, which nothing reads: what is slower by that is the page's price. The shortest of
several starts counts for each size, since everything else that happens on a host only adds.
"""

from functools import partial

from tools.launcher.acceptance import hostile
from tools.launcher.acceptance.model import Guest, Pages
from tools.launcher.acceptance.starts import Bench, outcome
from tools.launcher.base.errors import GuestError
from tools.launcher.guest.spec import Spec
from tools.sev.limits import PAGE

SIZES = (4 << 20, 8 << 20)
"""Bytes of firmware beside its own; QEMU maps no more (x86_firmware_configure(), FLASH_SIZE_LIMIT)."""
TRIES = 3


def pages(bench: Bench, guest: Guest, spec: Spec) -> Pages:
    """Seconds to the agent's first word by size; GuestError when a guest does not speak."""
    own = spec.config.firmware.size
    found: dict[int, float] = {}
    sizes = (own, *(size for size in SIZES if size > own))
    if len(sizes) < 2:
        raise GuestError(f"the firmware has {own >> 20} MiB, and QEMU maps no more: there is no other size to compare")
    for size in sizes:
        for _ in range(TRIES):
            start = outcome(bench, guest, spec, prepare=[partial(hostile.longer_firmware, size=size)])
            if start.hello is None:
                why = start.trouble or " ".join(start.said[-1:]) or str(start.end)
                raise GuestError(f"no guest came up with {size >> 20} MiB of firmware: {why}")
            count = size // PAGE
            found[count] = min(found.get(count, start.hello), start.hello)
    return Pages(seconds=found, tries=TRIES)
