# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that answers with other data than it holds, with none, or not yet.

Without dm-verity the workload believes it. Behind dm-verity either the right answer leaves the guest, or none.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Weaker
from tools.attack.base.target import Target
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.lies import LIES
from tools.attack.vhost.play import DECIDE, WRONG, Lie, Play, play
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.KERNEL, Part.AGENT})
# Past the page cache first, so that the same sectors are asked for again.
_TWICE = f"dd if=/etc/denied of=/dev/null bs=64k iflag=direct 2>/dev/null; {DECIDE}"
# Another program reads all the time, so that the disk has two requests at once.
_BUSY = f"(while dd if=/bin/busybox of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done) & {DECIDE}; kill $!"
_SCRIPTS = {"changes-between-reads": _TWICE, "ids-swapped": _BUSY}
_SAYS = {
    "ids-swapped": "completes two reads with each other's data",
    "completes-without-data": "completes reads without writing any data",
    "completes-before-data": "completes reads first and writes the data later",
    "completes-without-status": "completes reads with neither data nor status",
    "zeros": "answers reads with zeros",
    "other-sectors": "answers reads with genuine data from other sectors",
    "half-the-data": "writes half of the data, and says so in the used length",
    "overwrites-after-completion": "overwrites the data right after their completion",
    "changes-between-reads": "answers right at first, and with zeros when asked again",
    "status-io-error": "ends reads with the status IOERR",
    "status-unsupported": "ends reads with the status UNSUPP",
    "status-no-such": "ends reads with a status that does not exist",
}
_SHORT = {"completes-without-data"}


def attempt(lab: Lab, target: Target, folder: Path, *, kind: type[Disk], script: str, verity: bool) -> Outcome:
    """The workload lets in whom the list denies."""
    seen = play(lab, target, folder, Play(lies=[Lie(kind=kind)], script=script, verity=verity))
    if not seen.told[0]:
        raise BuildError(f"the lie was not told: {seen.became}")
    return Outcome(succeeded=WRONG in seen.output, guest=seen.became)


def attacks() -> Iterator[Attack]:
    """One for each lie."""
    for name, host in _SAYS.items():
        made = partial(attempt, kind=LIES[name], script=_SCRIPTS.get(name, DECIDE))
        yield Attack(
            name=name,
            host=f"{host} (vhost-user disk)",
            attempt=partial(made, verity=True),
            control=Weaker(what="without --verity", attempt=partial(made, verity=False)),
            parts=_PARTS,
            short=name in _SHORT,
        )
