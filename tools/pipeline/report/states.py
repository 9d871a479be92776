# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of each CVE in the pinned kernel and firmware, and why it is said.

changelog of the pin ─────┐
a newer changelog ────────┤
the kernel's CVE list ────┼── a finding each: fixed, absent, open, unknown
objects of the build ─────┤
decisions about patches ──┘

Nothing here is a judgement of how bad a fault is, or whether a guest's host or its workload can reach it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tools.pipeline.guest.firmware import DebianPatch
from tools.pipeline.report.changelog import Changelog, Mention
from tools.pipeline.report.compiled import Compiled
from tools.pipeline.report.kernel_list import KernelList, Record, Version, number


class State(StrEnum):
    """What can be said of a CVE in what is pinned."""

    FIXED = "fixed"
    ABSENT = "not compiled"
    OPEN = "open"
    UNKNOWN = "unknown"


MEANS = {
    State.OPEN: "the pin lacks the fix, and files that the fix changes were compiled",
    State.UNKNOWN: "the pin lacks the fix; nobody here knows whether the code is compiled, or reached",
    State.ABSENT: "the pin lacks the fix, but nothing of the code was compiled",
    State.FIXED: "the pin has the fix",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A CVE of a component: a source's name in sources.lock. `fixed_in` is the version that has the fix."""

    cve: str
    component: str
    state: State
    title: str
    why: str
    fixed_in: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Findings, open ones first; what the data are, with their dates; what is not known, a sentence each.

    `versions` are those of the components.
    """

    profile: str
    versions: Mapping[str, str]
    findings: tuple[Finding, ...]
    data: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]

    @property
    def date(self) -> str:
        """The day of the newest of the data, as YYYY-MM-DD."""
        return max(date for _, date in self.data)

    def of(self, state: State) -> list[Finding]:
        """The findings of one state."""
        return [finding for finding in self.findings if finding.state is state]


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Open ones first, the newest CVE first."""
    order = list(MEANS)
    return tuple(sorted(findings, key=lambda one: (order.index(one.state), one.component, *_negated(one.cve))))


def _negated(cve: str) -> tuple[int, int]:
    _, year, count = cve.split("-")
    return -int(year), -int(count)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What is known of a kernel. `listed` and `compiled` go together: without the list no files are known."""

    component: str
    pinned: Changelog
    newer: Changelog | None
    listed: KernelList | None
    compiled: Compiled | None


def kernel(known: Kernel) -> tuple[list[Finding], list[str]]:
    """Findings, and sentences about what is not known."""
    pinned, newer = known.pinned.cves, known.newer.cves if known.newer else {}
    records = known.listed.records if known.listed else {}
    rejected = known.listed.rejected if known.listed else frozenset()
    cases = (
        _Case(cve=cve, known=known, pinned=pinned.get(cve), newer=newer.get(cve), record=records.get(cve))
        for cve in sorted({*pinned, *newer, *records} - rejected)
    )
    found = [made for case in cases if (made := _finding(case)) is not None]
    said = []
    if known.listed is None:
        said.append(
            "Which files a fix of the kernel changes: there was no copy of the kernel's CVE list (--kernel-list), so "
            "nothing could be found to be not compiled."
        )
    if known.newer is None:
        said.append(
            f"What versions of {known.pinned.package} after {known.pinned.version} fix: there was no newer changelog "
            "(./doit cve --newer asks the mirrors)."
        )
    said.append(
        "CVEs that neither changelog nor list names: Debian's changelog does not name all that a version fixes."
    )
    return found, said


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A CVE of a kernel, and what each of the data says of it; None: nothing."""

    cve: str
    known: Kernel
    pinned: Mention | None
    newer: Mention | None
    record: Record | None

    @property
    def upstream(self) -> str:
        """The pinned version, as the kernel's authors call it."""
        return self.known.pinned.version.rpartition("-")[0]

    @property
    def version(self) -> Version:
        """The same in numbers."""
        return number(self.upstream) or (0, 0, 0)

    @property
    def affected(self) -> bool | None:
        """What the kernel's list says of the pinned version."""
        return None if self.record is None else self.record.affects(self.version)

    @property
    def patched(self) -> bool:
        """Whether only a patch of Debian's fixes it, which is not applied here."""
        return self.pinned is not None and self.known.pinned.patched(self.pinned)

    def finding(self, state: State, why: str, fixed_in: str = "") -> Finding:
        """What comes of it."""
        mention = self.pinned or self.newer
        title = (self.record.title if self.record else "") or (mention.subject if mention else "")
        return Finding(
            cve=self.cve, component=self.known.component, state=state, title=title, why=why, fixed_in=fixed_in
        )


def _finding(case: _Case) -> Finding | None:
    return _fixed(case) or _never(case) or _lacking(case)


def _fixed(case: _Case) -> Finding | None:
    pinned, record = case.pinned, case.record
    if pinned is not None and pinned.upstream:
        return case.finding(State.FIXED, f"changelog: upstream fix in {pinned.version}", pinned.version)
    if pinned is not None and not case.patched and case.affected is not True:
        why = f"changelog: Debian patched {pinned.version}, and needs no patch for it any more"
        return case.finding(State.FIXED, why, pinned.version)
    before = record.fixed_before(case.version) if record is not None and case.affected is False else ""
    return case.finding(State.FIXED, f"kernel's list: fixed in {before}", before) if before else None


def _never(case: _Case) -> Finding | None:
    if case.affected is False and (case.newer or case.pinned):
        return case.finding(State.ABSENT, f"kernel's list: {case.upstream} never had the fault")
    return None


def _lacking(case: _Case) -> Finding | None:
    record, newer, compiled = case.record, case.newer, case.known.compiled
    # Fixed before this series began, or brought in after it.
    if case.affected is False or (case.affected is None and newer is None and not case.patched and record is None):
        return None
    fixed_in = newer.version if newer else record.fixed_in(case.version) if record else ""
    lacking = f"fixed in {fixed_in}" if fixed_in else "no fix is known for this series"
    if case.patched:
        lacking = "fixed by a patch of Debian's, which is not applied here"
    elif case.affected is None and newer is None:
        lacking = "the kernel's list says nothing of versions"
    files = record.files if record else ()
    made = compiled.compiled(files) if compiled and files else None
    if made is None:
        why = "its files cannot be told in this tree" if files else "no list of its files"
        return case.finding(State.UNKNOWN, f"{lacking}; {why}", fixed_in)
    if made:
        return case.finding(State.OPEN, f"{lacking}; compiled: {_few(files, compiled)}", fixed_in)
    return case.finding(State.ABSENT, f"{lacking}; not compiled: {_few(files, None)}", fixed_in)


def _few(files: Sequence[str], compiled: Compiled | None) -> str:
    shown = [path for path in files if compiled is None or path in compiled.used]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def firmware(
    component: str, pinned: Changelog, newer: Changelog | None, patches: Sequence[DebianPatch], *, where: str
) -> tuple[list[Finding], list[str]]:
    """Findings of the firmware. `patches` are the decisions about Debian's, in the file `where`."""
    found = []
    decided: dict[str, list[DebianPatch]] = {}
    for patch in patches:
        for cve in patch.cves:
            decided.setdefault(cve, []).append(patch)
    later = newer.cves if newer else {}
    for cve in sorted({*pinned.cves, *decided, *later}):
        mention = pinned.cves.get(cve) or later.get(cve)
        title = mention.subject if mention else ""

        def finding(state: State, why: str, fixed_in: str = "", *, cve: str = cve, title: str = title) -> Finding:
            return Finding(cve=cve, component=component, state=state, title=title, why=why, fixed_in=fixed_in)

        ours = decided.get(cve, [])
        if any(patch.apply for patch in ours):
            names = ", ".join(patch.file for patch in ours if patch.apply)
            found.append(finding(State.FIXED, f"Debian's patch is applied: {names}", pinned.version))
        elif ours:
            found.append(finding(State.ABSENT, "; ".join(dict.fromkeys(patch.reason for patch in ours))))
        elif cve in pinned.cves:
            version = pinned.cves[cve].version
            found.append(finding(State.FIXED, f"changelog: fixed in {version}, no patch is left of it", version))
        else:
            version = later[cve].version
            found.append(finding(State.UNKNOWN, f"fixed in {version}; no decision in {where} yet", version))
    said = []
    if newer is None:
        said.append(f"What versions of {pinned.package} after {pinned.version} fix: there was no newer changelog.")
    return found, said


def update(old: Changelog, new: Changelog) -> list[str]:
    """CVEs that a version fixes and an older one does not, the newest first."""
    return newest_first(set(new.cves) - set(old.cves))


def newest_first(cves: Iterable[str]) -> list[str]:
    """CVEs by their numbers, the newest first."""
    return sorted(cves, key=_negated)
