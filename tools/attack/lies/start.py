# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest that starts through its firmware on the lying QEMU; its memory is a file that the host looks into."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.attack.guests import firmware
from tools.attack.guests.firmware import Became, Host
from tools.attack.lies.qemu import Liar, liar
from tools.pipeline.base.errors import BuildError

MARK = bytes.fromhex("6c69655f9d3c1be4a70852f6d1384bc7")
"""What the host fills its files with: where it is in the guest's memory, a transfer of the host's went."""

_DIRECTORY = {"size", "name", "count"}  # lies that are told with each reading of fw_cfg's directory
_CPU = 30.0  # seconds of QEMU's processor time without a sign of anything; an honest start takes three
_MEMORY = "memory"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What became of a start. `marks`: copies of MARK in the guest's memory; `serial`: what its kernel said; `chosen`:
    files of fw_cfg that the guest chose to read.
    """

    became: Became
    marks: int
    serial: str
    chosen: frozenset[str]
    liar: Liar


def start(
    lab: Lab,
    target: Target,
    folder: Path,
    lies: Sequence[str],
    *,
    files: Mapping[str, bytes] = {},
    options: Sequence[tuple[str, ...]] = (),
    until: str = "",
) -> Ended:
    """Start it; in `lies`, `@NAME` is one of the `files`. `until`: what a kernel
    must have said to count as started. BuildError when the first lie was not told, or one about the directory.
    """
    honest = lab.once(f"host of {target.name}", partial(Host.of, target, lab.qemu))
    place, run = folder / "liar", folder / "run"
    place.mkdir()
    run.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    lines = [lie.replace("@", f"{place}/") for lie in lies]
    program = liar(lab, place, lines)
    host = dataclasses.replace(honest, options=(*_options(honest, program.path), *options))
    became = firmware.watch(host, run, cpu_limit=_CPU, until=until)
    told = set(program.told)
    silent = [lie for line, lie in zip(lines, lies, strict=True) if line not in told and must_be_told(lie, lies[0])]
    if silent:
        raise BuildError(f"the lie was not told: {silent[0]}; {became}")
    serial = run / "serial"
    text = serial.read_text(errors="replace") if serial.exists() else ""
    memory = run / _MEMORY
    marks = len(re.findall(re.escape(MARK), memory.read_bytes())) if memory.exists() else 0
    memory.unlink(missing_ok=True)
    chosen = frozenset(line.split(" ", 3)[3] for line in program.readings)
    return Ended(became=became, marks=marks, serial=text, chosen=chosen, liar=program)


def must_be_told(lie: str, first: str) -> bool:
    """Without which a row shows nothing. A guest that refused the first item of several does not ask for the others."""
    return lie == first or lie.split(" ", 1)[0] in _DIRECTORY


def size_of_memory(lab: Lab, target: Target) -> int:
    """Bytes."""
    honest = lab.once(f"host of {target.name}", partial(Host.of, target, lab.qemu))
    (text,) = (option[1] for option in honest.options if option[0] == "-m")
    return int(text.removesuffix("M")) << 20


def _options(host: Host, qemu: Path) -> list[tuple[str, ...]]:
    made: list[tuple[str, ...]] = []
    for number, option in enumerate(host.options):
        match option:
            case _ if number == 0:
                made.append((str(qemu),))
            case ("-machine", value):
                made.append(("-machine", f"{value},memory-backend=shared"))
            case ("-m", size):
                shared = f"memory-backend-file,id=shared,size={size},mem-path={_MEMORY},share=on"
                made += [option, ("-object", shared)]
            case _:
                made.append(option)
    return made
