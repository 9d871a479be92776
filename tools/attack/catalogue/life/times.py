# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Time as the host makes it: pauses, another century; and the button that asks a guest to end.

The date is the host's in any case (docs/threat-model.md). What must not be: a clock that runs backwards under a
program, an agent that does anything else than its document says.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome
from tools.attack.base.target import Target
from tools.attack.guests import disks
from tools.attack.guests.machine import Machine, Setup, Speaker
from tools.pipeline.base.errors import BuildError
from tools.sev.workload.document import Document, Process

Act = Callable[[Machine], None]
# Hundredths of a second since the boot, read again and again; awk would print them in another way.
_SCRIPT = """\
echo up; last=0; i=0
while [ $i -lt 2000 ]; do
    read now rest < /proc/uptime; now=${now%.*}${now#*.}
    [ $now -ge $last ] || echo back from $last to $now
    last=$now; i=$((i+1))
done
echo done; date +%Y"""


def pauses(machine: Machine) -> None:
    """Three pauses, a second and a half each, with the hardware's clock going on."""
    for _ in range(3):
        machine.monitor.execute("stop")
        time.sleep(1.5)
        machine.monitor.execute("cont")


def buttons(machine: Machine) -> None:
    """Ten times; QEMU says that the last one was pressed."""
    for _ in range(10):
        machine.monitor.execute("system_powerdown")
    if machine.monitor.event("POWERDOWN") is None:
        raise BuildError("the button was never pressed")


def _nothing(_: Machine) -> None:
    pass


def attempt(
    lab: Lab, target: Target, folder: Path, *, act: Act = _nothing, replaced: Mapping[str, str], year: bytes
) -> Outcome:
    """The attack wants a program that reads a clock to see it run backwards, to do something else, or to end.

    `year` is part of the year that the host chose, which shows that it had its way with the clock.
    """
    disk = disks.plain(lab)
    process = Process(argv=("sh", "-c", _SCRIPT), environment=disks.ENVIRONMENT)
    document = Document(root=disk.root, process=process)
    options = tuple(word for option in replaced.items() for word in option)
    with Machine(lab, target, folder, Setup(disk=disk.data, document=document, options=options)) as machine:
        guest = Speaker(machine)
        guest.start(document)
        guest.until(b"up\n")
        act(machine)
        result = guest.rest()
    right = result.out.startswith(b"done\n") and result.exited == (0, 0, 0, 0)
    if right and not result.out.startswith(b"done\n" + year):
        raise BuildError(f"the guest's year is {result.out[5:]!r}")
    said = "did what it should" if right else f"said {result.out[-60:]!r} and ended {result.exited}"
    return Outcome(succeeded=not right, guest=f"its program {said}")


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """Left alone the program does what it should."""
    told = lab.once(f"clock {target.name}", lambda: attempt(lab, target, folder, replaced={}, year=b"20"))
    return Outcome(succeeded=not told.succeeded, guest=told.guest)


def attacks() -> Iterator[Attack]:
    """The rows."""
    none: Mapping[str, str] = {}
    for name, host, act, replaced, year in (
        ("pauses", "stops the guest for a while, again and again", pauses, none, b"20"),
        ("power-button", "presses the power button, again and again", buttons, none, b"20"),
        (
            "far-future",
            # Years of two digits: Linux takes those from 70 on for the last century's (drivers/rtc/rtc-mc146818-lib.c).
            "has the clock say the last day of the year 2068",
            _nothing,
            {"-rtc": "base=2068-12-31"},
            b"206",
        ),
        ("past", "has the clock say a day of the year 2001", _nothing, {"-rtc": "base=2001-02-03"}, b"2001"),
    ):
        tried = partial(attempt, act=act, replaced=replaced, year=year)
        yield Attack(name=name, host=host, attempt=tried, control=Honest(what="left alone", attempt=honest))
