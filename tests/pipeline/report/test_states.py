# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of each CVE: from changelogs, the kernel's list and objects, each alone and together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.pipeline.report import kit
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.guest.firmware import DebianPatch
from tools.pipeline.report import changelog, kernel_list, states, table, vex
from tools.pipeline.report.compiled import Compiled
from tools.pipeline.report.states import Finding, Kernel, Report, State

BUILT = Compiled(
    used=frozenset({"mm/vmscan.c", "include/linux/mm.h", "kernel/events/core.c"}),
    tree=frozenset({"mm/vmscan.c", "include/linux/mm.h", "kernel/events/core.c", "fs/exfat/nls.c", "scripts/gen.pl"}),
)


@pytest.fixture
def listed(tmp_path: Path) -> kernel_list.KernelList:
    return kernel_list.load(kit.write_list(tmp_path / "vulns"))


def judged(known: Kernel) -> dict[str, Finding]:
    findings, _ = states.kernel(known)
    assert len({one.cve for one in findings}) == len(findings)
    return {one.cve: one for one in findings}


# ── changelogs ──


def test_what_a_changelog_says() -> None:
    found = kit.old()
    assert (found.package, found.version, found.date) == ("linux", "6.12.107-1", "2026-08-29")
    assert found.cves["CVE-2026-10003"].subject == "KVM: Prevent access before init of vCPUs"
    assert {cve: one.upstream for cve, one in found.cves.items()} == {
        "CVE-2026-10001": True,  # a patch at first, then upstream's
        "CVE-2026-10002": True,
        "CVE-2026-10003": True,
        "CVE-2026-10004": False,
        "CVE-2026-10005": False,
        "CVE-2026-10006": False,
    }
    assert [cve for cve, one in found.cves.items() if found.patched(one)] == ["CVE-2026-10004"]
    assert states.update(found, kit.new()) == ["CVE-2026-20003", "CVE-2026-20002", "CVE-2026-20001", "CVE-2025-38206"]


def test_what_is_no_packaging() -> None:
    for data in (b"", b"no archive", kit.packaging(kit.OLD)[:300]):
        with pytest.raises(BuildError, match=r"x\.tar: is no Debian source archive"):
            changelog.read(data, where="x.tar")
    with pytest.raises(BuildError, match=r"x\.tar: debian/changelog: has no entry"):
        changelog.read(kit.packaging("nothing\n"), where="x.tar")


# ── the kernel ──


def test_changelogs_alone_find_nothing_to_be_not_compiled() -> None:
    found = judged(Kernel(component="linux", pinned=kit.old(), newer=kit.new(), listed=None, compiled=None))
    assert {cve: one.state for cve, one in found.items()} == {
        "CVE-2025-38206": State.UNKNOWN,
        "CVE-2026-10001": State.FIXED,
        "CVE-2026-10002": State.FIXED,
        "CVE-2026-10003": State.FIXED,
        "CVE-2026-10004": State.UNKNOWN,  # Debian patches it, and no patch of Debian's is applied here
        "CVE-2026-10005": State.FIXED,
        "CVE-2026-10006": State.FIXED,
        "CVE-2026-20001": State.UNKNOWN,
        "CVE-2026-20002": State.UNKNOWN,
        "CVE-2026-20003": State.UNKNOWN,
    }
    assert found["CVE-2026-20001"].fixed_in == "6.12.111-1"
    assert "not applied here" in found["CVE-2026-10004"].why


def test_all_data_together(listed: kernel_list.KernelList) -> None:
    found = judged(Kernel(component="linux", pinned=kit.old(), newer=kit.new(), listed=listed, compiled=BUILT))
    assert {cve: one.state for cve, one in found.items() if cve >= "CVE-2026-2" or cve < "CVE-2026"} == {
        "CVE-2025-38206": State.ABSENT,
        "CVE-2026-20001": State.OPEN,
        # CVE-2026-20002 was rejected
        "CVE-2026-20003": State.ABSENT,
        "CVE-2026-30001": State.FIXED,
        # CVE-2026-30002 was fixed before there was a 6.12
        "CVE-2026-30003": State.UNKNOWN,
        "CVE-2026-30004": State.UNKNOWN,
        "CVE-2026-30005": State.ABSENT,
    }
    assert found["CVE-2025-38206"].why == "fixed in 6.12.111-1; not compiled: fs/exfat/nls.c"
    assert found["CVE-2026-20001"].why == "fixed in 6.12.111-1; compiled: mm/vmscan.c"
    assert found["CVE-2026-20003"].why == "kernel's list: 6.12.107 never had the fault"
    assert found["CVE-2026-30001"].why == "kernel's list: fixed in 6.12.90"
    assert found["CVE-2026-30005"].fixed_in == "7.1"
    # The changelog is of what is pinned; the list may be older.
    assert found["CVE-2026-10001"].state is State.FIXED
    # The mechanism: had the file been compiled, it would be open.
    other = replace(BUILT, used=BUILT.used | {"fs/exfat/nls.c"})
    again = judged(Kernel(component="linux", pinned=kit.old(), newer=kit.new(), listed=listed, compiled=other))
    assert again["CVE-2025-38206"].state is State.OPEN


def test_what_is_not_known_is_said() -> None:
    known = Kernel(component="linux", pinned=kit.old(), newer=None, listed=None, compiled=None)
    _, said = states.kernel(known)
    assert len(said) == 3
    assert "--kernel-list" in said[0]
    assert "after 6.12.107-1" in said[1]
    _, said = states.kernel(replace(known, newer=kit.new()))
    assert len(said) == 2


@pytest.mark.parametrize(
    ("version", "affected", "fixed_in", "fixed_before"),
    [
        ("6.12.107", True, "6.12.111", ""),
        ("6.12.111", False, "7.1", "6.12.111"),
        ("6.13.1", True, "7.1", ""),
        ("7.1", False, "", "7.1"),
        ("5.6.19", False, "6.12.111", ""),
        ("5.7", True, "6.12.111", ""),
    ],
)
def test_versions(
    listed: kernel_list.KernelList, version: str, affected: bool, fixed_in: str, fixed_before: str
) -> None:
    record, number = listed.records["CVE-2026-20001"], kernel_list.number(version)
    assert number is not None
    assert record.affects(number) is affected
    assert record.fixed_before(number) == fixed_before
    if affected:
        assert record.fixed_in(number) == fixed_in


def test_copies_of_the_list_that_are_refused(tmp_path: Path) -> None:
    good = kit.write_list(tmp_path / "vulns")
    assert kernel_list.load(good) == kernel_list.load(good / "cve")
    assert kernel_list.load(good).date == "2026-10-30"
    with pytest.raises(UserError, match=r"is no copy of the kernel's CVE list"):
        kernel_list.load(tmp_path)
    bad = good / "cve/published/2026/CVE-2026-30001.json"
    for text in ("", "[]", "{}", '{"cveMetadata": {"cveID": "x"}, "containers": {"cna": {}}}', "[" * 100_000):
        bad.write_text(text)
        with pytest.raises(UserError, match=r"vulns/published/2026/CVE-2026-30001\.json: is no CVE record"):
            kernel_list.load(good)


# ── the firmware ──


def test_decisions_about_patches() -> None:
    patches = [
        DebianPatch(file="a.patch", apply=True, cves=("CVE-2026-10004",), reason="built"),
        DebianPatch(file="b.patch", apply=False, cves=("CVE-2026-10005",), reason="no network stack"),
        DebianPatch(file="c.patch", apply=False, cves=("CVE-2026-10005",), reason="no code"),
    ]
    findings, said = states.firmware("edk2", kit.old(), kit.new(), patches, where="debian.toml")
    found = {one.cve: one for one in findings}
    assert found["CVE-2026-10004"].why == "Debian's patch is applied: a.patch"
    assert (found["CVE-2026-10005"].state, found["CVE-2026-10005"].why) == (State.ABSENT, "no network stack; no code")
    assert found["CVE-2026-10001"].state is State.FIXED
    assert (found["CVE-2026-20001"].state, found["CVE-2026-20001"].fixed_in) == (State.UNKNOWN, "6.12.111-1")
    assert not said


# ── documents ──


def report(listed: kernel_list.KernelList) -> Report:
    known = Kernel(component="linux", pinned=kit.old(), newer=kit.new(), listed=listed, compiled=BUILT)
    findings, said = states.kernel(known)
    return Report(profile="production", versions={"linux": "6.12.107-1"}, findings=states.ordered(findings),
                  data=(("one", "2026-08-29"), ("two", "2026-10-30")), unknown=tuple(said))  # fmt: skip


def test_vex_is_strictly_valid_and_stable(listed: kernel_list.KernelList) -> None:
    found = report(listed)
    data = vex.render(found, version="0.1.0")
    assert vex.render(report(listed), version="0.1.0") == data
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(data.decode()) is None
    for old, new in ((b'"in_triage"', b'"maybe"'), (b'"code_not_present"', b'"absent"')):
        assert old in data
        assert validator.validate_str(data.replace(old, new, 1).decode()) is not None
    document = json.loads(data)
    assert document["metadata"]["timestamp"] == "2026-10-30T00:00:00Z"
    said = {one["id"]: one for one in document["vulnerabilities"]}
    assert said["CVE-2026-20001"]["analysis"]["state"] == "exploitable"
    assert said["CVE-2026-20001"]["recommendation"] == "Take linux 6.12.111-1 or later."
    assert said["CVE-2025-38206"]["analysis"] == {
        "state": "not_affected",
        "justification": "code_not_present",
        "detail": "fixed in 6.12.111-1; not compiled: fs/exfat/nls.c",
    }
    assert said["CVE-2026-30004"]["analysis"]["state"] == "in_triage"
    assert said["CVE-2026-10001"]["analysis"]["state"] == "resolved"
    assert {one["ref"] for each in said.values() for one in each["affects"]} == {"source:linux"}


def test_the_table(listed: kernel_list.KernelList) -> None:
    found = report(listed)
    text = table.as_text(found, every=False)
    assert text.startswith("open: 1  (")
    assert "   CVE-2026-20001  linux  mm: vmscan: an invented fault: fixed in 6.12.111-1; compiled: mm/vmscan.c" in text
    assert "CVE-2025-38206" not in text
    assert "CVE-2025-38206" in table.as_text(found, every=True)
    assert "2026-10-30  two" in text
    hostile = replace(found.findings[0], title="\x1b[31mred\nnew line")
    assert "\x1b" not in table.as_text(replace(found, findings=(hostile,)), every=True)
    document = json.loads(table.as_json(found))
    assert document["counts"] == {"open": 1, "unknown": 3, "not compiled": 3, "fixed": 6}
    assert document["date"] == "2026-10-30"
    assert document["unknown"] == list(found.unknown)
