# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whether what crossed a channel lies where the guest's kernel says that its bounce buffers are."""

import dataclasses
import re
from dataclasses import dataclass

from tools.launcher.memory import process, scan
from tools.launcher.memory.check import Checked

_POOL = re.compile(r"software IO TLB: mapped \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\]")
_LOW_END = 2 << 30
"""Below it, with q35, an address in the guest is an offset in QEMU's mapping: pc_q35_init() of hw/i386/pc_q35.c."""


@dataclass(frozen=True, kw_only=True)
class Bounced:
    """`pools` are the guest's addresses, first and last, that its kernel named; `hit`: where the text lies, in which.

    `forced`: the kernel was told to force them, but does not say where they are.
    """

    pools: tuple[tuple[int, int], ...]
    hit: tuple[int, int, int] | None
    forced: bool

    @property
    def said(self) -> str:
        """For people."""
        if self.hit is not None:
            at, start, end = self.hit
            return f"In use: what was just sent to the guest lies in them, at {at:#x}, within {start:#x}-{end:#x}."
        if self.pools:
            return "There, but what was just sent to the guest was not found in them."
        if self.forced:
            return "In use: the kernel was told to force them (swiotlb=force); then it does not say where they lie."
        return "The kernel has no bounce buffers: devices reach all of the guest's memory."


def look(checked: Checked, *, kernel: str, control: bytes) -> Bounced:
    """Look for the `control`, which a device gave the guest a moment ago; `kernel` is the guest's log."""
    pools = tuple((int(match[1], 16), int(match[2], 16)) for match in _POOL.finditer(kernel))
    forced = "swiotlb=force" in kernel and "software IO TLB" in kernel
    return Bounced(pools=pools, hit=_hit(checked, pools, control), forced=forced)


def _hit(checked: Checked, pools: tuple[tuple[int, int], ...], control: bytes) -> tuple[int, int, int] | None:
    memory = checked.memory
    with process.opened(checked.pid) as there:
        for start, end in pools:
            if end > min(_LOW_END, memory.size):
                continue
            part = dataclasses.replace(
                memory, start=memory.start + start, end=memory.start + end, offset=memory.offset + start
            )
            hits = scan.scan(there, [part], [control]).hits[control]
            if hits:
                return hits[0] - memory.start, start, end
    return None
