# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The whole check of one process: controls, marker, verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.launcher.base.errors import UserError
from tools.launcher.memory import process as processes
from tools.launcher.memory import scan as scans
from tools.launcher.memory import verdict as verdicts
from tools.launcher.memory.process import PAGE, Mapping, Process
from tools.launcher.memory.verdict import Evidence, Verdict

TEXT_MIN = 16
"""Bytes of a marker and of a control: shorter ones are found anywhere."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A page for people: what it shows, its address, where in it (None: all of it), its bytes."""

    what: str
    address: int
    at: int | None
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Checked:
    """`memory` is the guest's; `pages` show what the verdict rests on."""

    pid: int
    memory: Mapping
    evidence: Evidence
    verdict: Verdict
    pages: tuple[Shown, ...]


def check(pid: int, *, marker: bytes, controls: Sequence[bytes] = (), size: int | None = None) -> Checked:
    """Look into the process; UserError when it is none of a guest, LauncherError when it ends meanwhile.

    `controls`: texts that the host gave to the guest through a channel, beside the kernel's command line. `size` of
    the guest's memory in bytes, if its command line does not say.
    """
    for text in (marker, *controls):
        if len(text) < TEXT_MIN:
            raise UserError(f"{text[:80]!r} has less than {TEXT_MIN} bytes, and may be found anywhere")
    with processes.opened(pid) as process:
        memory = processes.guest_memory(process, size=size)
        own_control = process.control()
        if own_control is None:
            raise UserError("has no command line to look for in its heap", where=f"process {pid}")
        heap = [m for m in process.mappings() if m.is_anonymous and not memory.start <= m.start < memory.end]
        own = scans.scan(process, heap, [own_control, marker])
        append = process.value(b"-append")
        wanted = tuple(dict.fromkeys((*controls, *([append] if append and len(append) >= TEXT_MIN else []))))
        guest = scans.scan(process, [memory], [marker, *wanted, verdicts.BANNER], sample=True)
        evidence = Evidence(marker=marker, own_control=own_control, guest_controls=wanted, own=own, guest=guest)
        verdict = verdicts.judge(evidence)
        return Checked(
            pid=pid, memory=memory, evidence=evidence, verdict=verdict, pages=tuple(_pages(process, evidence))
        )  # fmt: skip


def _pages(process: Process, evidence: Evidence) -> list[Shown]:
    own, guest = evidence.own.hits, evidence.guest.hits
    places = [("QEMU's heap, its own command line", own[evidence.own_control])]
    places += [("guest's memory, what the host gave it", guest[control]) for control in evidence.guest_controls]
    places.append(("guest's memory, the marker", guest[evidence.marker]))
    if not guest[evidence.marker] and evidence.guest.example is not None:
        places.append(("guest's memory, one of its pages", [evidence.guest.example]))
    found = []
    for what, hits in places:
        if hits:
            data = scans.page_at(process, hits[0])
            found.append(Shown(what=what, address=hits[0] // PAGE * PAGE, at=hits[0] % PAGE, data=data))
    return found
