# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch memcheck`: what this host sees of a running guest's memory."""

import os
import re

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.memory import dump
from tools.launcher.memory.check import Checked, check
from tools.launcher.memory.process import qemu_of
from tools.launcher.memory.verdict import Word
from tools.launcher.options.arguments import JSON
from tools.launcher.options.parser import Group, Option, Syntax

_ROWS = 8
_UNITS = {"M": 20, "G": 30}


def _pid(text: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,9}", text) is None:
        raise ValueError(f"{text[:80]!r} is no process number")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,6})([MG])", text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is no size: a whole number and M or G, as in 512M")
    return int(match[1]) << _UNITS[match[2]]


SYNTAX = Syntax(
    Group(
        "options",
        Option("--pid", "PID", text="the QEMU process, or one that has started it", convert=_pid),
        Option("--marker", "TEXT", text="what only the guest has in its memory", convert=os.fsencode),
        Option(
            "--control",
            "TEXT",
            text="what the host gave to the guest through a channel; default: the kernel's command line",
            convert=os.fsencode,
            many=True,
        ),
        Option("--memory", "SIZE", text="the guest's memory; default: as QEMU's -m says", convert=_size),
        Option("--whole", text="show whole pages, not a few rows"),
        JSON,
    ),
    usage=("--pid PID --marker TEXT [options]",),
    examples=f"""\
examples:
  {NAME} memcheck --pid 1234 --marker "$MARKER"
      MARKER must have been made in the guest, of something masked, so that it never crossed a channel:
      in the guest  marker=$(echo "$MASKED" | tr a-z n-za-m); here  MARKER=$(echo "$MASKED" | tr a-z n-za-m)
  {NAME} memcheck --pid 1234 --marker "$MARKER" --control "$MASKED"
      and what crossed a channel must be found, encrypted or not: it lies in buffers that are shared

the verdict is plaintext, ciphertext, not accessible (private pages that are not in QEMU's memory), or inconclusive;
exit status: 0 this host cannot read the guest's memory; 1 it can, or nothing was shown; 2 a mistake in options""",
)


def run(values: Values, ui: Ui) -> int:
    """Check; the verdict on stdout."""
    del ui
    missing = [f"--{name}" for name in ("pid", "marker") if values[name] is None]
    if missing:
        raise UserError(f"give {' and '.join(missing)}", hint=f"see {NAME} memcheck --help")
    checked = check(qemu_of(values.pid), marker=values.marker, controls=values.control, size=values.memory)
    if values.json:
        write_json(as_json(checked))
    else:
        write_stdout(text(checked, rows=None if values.whole else _ROWS))
    return 0 if checked.verdict.word in (Word.CIPHERTEXT, Word.NOT_ACCESSIBLE) else 1


def text(checked: Checked, *, rows: int | None = _ROWS) -> str:
    """For people; `rows` of each page, None: all."""
    memory, guest = checked.memory, checked.evidence.guest
    kind = memory.name or "anonymous"
    place = f"{memory.size >> 20} MiB at {memory.start:#x} ({kind})"
    amounts = f"{guest.touched >> 20} MiB touched, {guest.read >> 20} MiB read"
    lines = [f"guest's memory  process {checked.pid}, {place}, {amounts}"]
    for page in checked.pages:
        lines.append(f"{page.what}:")
        lines += [f"  {row}" for row in dump.rows(page.data, address=page.address, around=page.at, count=rows)]
    filled = guest.random + guest.other
    lines.append(f"pages           looked at {guest.zero + filled}: {guest.zero} of zeros, {guest.random} random")
    lines.append(f"verdict         {checked.verdict.word}: {checked.verdict.why}")
    return "\n".join(lines) + "\n"


def as_json(checked: Checked) -> dict[str, object]:
    """The same for programs."""
    evidence, memory = checked.evidence, checked.memory
    guest = evidence.guest
    return {
        "verdict": str(checked.verdict.word),
        "why": checked.verdict.why,
        "pid": checked.pid,
        "memory": {
            "address": memory.start,
            "bytes": memory.size,
            "name": memory.name,
            "touched": guest.touched,
            "read": guest.read,
        },
        "pages": {"zero": guest.zero, "random": guest.random, "other": guest.other},
        "heap_control": evidence.own.hits[evidence.own_control],
        "guest_controls": [evidence.guest.hits[control] for control in evidence.guest_controls],
        "marker": guest.hits[evidence.marker],
        "shown": [{"what": p.what, "address": p.address, "page": p.data.hex()} for p in checked.pages],
    }
