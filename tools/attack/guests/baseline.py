# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An honest start: what a target does when nobody attacks it. Without that, no row says anything."""

import tempfile
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Reach
from tools.attack.base.target import Target
from tools.attack.guests import firmware
from tools.attack.guests.firmware import Became, Host

_REACH = {Became.BOOTED: Reach.AGENT, Became.STARTED: Reach.KERNEL, Became.REFUSED: Reach.NOTHING}


def reach(lab: Lab, target: Target) -> Reach:
    """How far it comes, through its firmware."""
    with tempfile.TemporaryDirectory(dir=lab.work) as folder:
        return _REACH[firmware.start(Host.of(target, lab.qemu), Path(folder))]
