# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that overwrites its buffers long after the guest has verified what it had written there.

Where buffers are the guest's own pages, as in a guest without encryption, dm-verity does not help: what it verified
lies in memory that the device goes on writing to. In an encrypted guest a device only ever has bounce buffers, which
swiotlb=force shows in a plain one. A kernel patch sees to it that this does not depend on what the device says of
itself (VIRTIO_F_ACCESS_PLATFORM); a parameter of that patch shows it likewise.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Weaker
from tools.attack.base.target import Target
from tools.attack.vhost.lies.late import Holder, Patient, PatientWithoutPlatform
from tools.attack.vhost.play import BOUNCED, DECIDE, READY, WAIT, WRONG, Lie, Play, play
from tools.attack.vhost.qemu import PROTECTED
from tools.pipeline.base.errors import BuildError

_FORCED = "virtio_ring.force_dma_api=1"
_SCRIPT = f"cat /etc/denied >/dev/null; {WAIT}; {DECIDE}"


def attempt(lab: Lab, target: Target, folder: Path, *, kind: type[Patient], append: str) -> Outcome:
    """The workload, behind dm-verity, reads what was written after the verification."""
    holder = Holder(kind)
    options = PROTECTED if kind is Patient else "iommu_platform=off,disable-legacy=on"
    what = Play(
        lies=[Lie(kind=holder, options=options)],
        script=_SCRIPT,
        append=append,
        during=lambda _: holder.strike(),
    )
    seen = play(lab, target, folder, what)
    if not seen.told[0] or READY not in seen.output:
        raise BuildError(f"the guest did not come so far: {seen.became}")
    return Outcome(succeeded=WRONG in seen.output, guest=seen.became.removeprefix(READY).strip("; "))


def attacks() -> Iterator[Attack]:
    """With and without the promise to leave other memory alone."""
    yield Attack(
        name="late",
        host="overwrites data in its buffers after they were verified (vhost-user disk)",
        attempt=partial(attempt, kind=Patient, append=BOUNCED),
        control=Weaker(
            what=f"without {BOUNCED}, as no encrypted guest is", attempt=partial(attempt, kind=Patient, append="")
        ),
        parts=frozenset({Part.KERNEL}),
        short=True,
    )
    late = partial(attempt, kind=PatientWithoutPlatform)
    yield Attack(
        name="late-no-access-platform",
        host="does so as a disk that does not know VIRTIO_F_ACCESS_PLATFORM (vhost-user disk)",
        attempt=partial(late, append=f"{BOUNCED} {_FORCED}"),
        control=Weaker(what=f"without {_FORCED}", attempt=partial(late, append=BOUNCED)),
        parts=frozenset({Part.KERNEL}),
    )
