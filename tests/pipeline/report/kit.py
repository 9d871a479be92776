# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Debian packagings and CVE records that tests write themselves."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.pipeline.report import changelog
from tools.pipeline.report.changelog import Changelog

OLD = """\
linux (6.12.107-1) trixie; urgency=medium

  * New upstream stable update:
    https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.12.107
    - perf: Reject exited events (CVE-2026-10001)
    - [arm64] KVM: Prevent access before
      init of vCPUs (CVE-2026-10002, CVE-2026-10003)
  * net/rds: reset op_nents when pinning fails (CVE-2026-10004)
  * smb: client: keep the lock (CVE-2026-10005)

 -- Some Body <some@body.example>  Sat, 29 Aug 2026 06:19:09 +0200

linux (6.12.94-1) trixie; urgency=medium

  * perf: Reject exited events (CVE-2026-10001)

  [ Some Body ]
  * x86: An old one. (CVE-2026-10006)

 -- Some Body <some@body.example>  Mon, 01 Jun 2026 06:19:09 +0200
"""
NEW = """\
linux (6.12.111-1) trixie-security; urgency=high

  * New upstream stable update:
    - exfat: fix double free in delayed_free (CVE-2025-38206)
    - mm: vmscan: an invented fault (CVE-2026-20001)
    - an invented fault without a record (CVE-2026-20002)
    - brought in after the pin, and fixed (CVE-2026-20003)

 -- Some Body <some@body.example>  Mon, 28 Sep 2026 14:18:50 +0200

"""
PATCH = """\
From: Some Body <some@body.example>
Date: Mon, 1 Jun 2026 00:00:00 +0000
Subject: [PATCH] net/rds: reset op_nents
 when pinning fails
Origin: upstream

---
 net/rds/message.c | 1 +
"""


def packaging(log: str, patches: Mapping[str, str] | None = None) -> bytes:
    """NAME_VERSION.debian.tar.xz."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        for name, text in {"changelog": log, **{f"patches/{n}": t for n, t in (patches or {}).items()}}.items():
            member = tarfile.TarInfo(f"debian/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def old() -> Changelog:
    return changelog.read(packaging(OLD, {"rds.patch": PATCH}), where="old")


def new() -> Changelog:
    return changelog.read(packaging(NEW + OLD), where="new")


def since(version: str, *fixed: str, before: str = "0") -> list[dict[str, Any]]:
    """Versions of a record as the kernel's list has them: from `version` on affected, `fixed` in each series."""
    found: list[dict[str, Any]] = [
        {"version": version, "status": "affected"},
        {"version": before, "lessThan": version, "status": "unaffected", "versionType": "semver"},
    ]
    for one in fixed[:-1]:
        series = one.rpartition(".")[0]
        found.append({"version": one, "lessThanOrEqual": f"{series}.*", "status": "unaffected"})
    if fixed:
        last = {"version": fixed[-1], "lessThanOrEqual": "*", "status": "unaffected"}
        found.append({**last, "versionType": "original_commit_for_fix"})
    return found


def record(cve: str, title: str, files: Sequence[str], versions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A record with the keys that those of security/vulns have."""
    commits = [{"version": "1acf1a564b60", "lessThan": "13d8de1b6568", "status": "affected", "versionType": "git"}]
    common = {"product": "Linux", "vendor": "Linux", "programFiles": list(files)}
    return {
        "dataType": "CVE_RECORD",
        "cveMetadata": {"cveID": cve, "state": "PUBLISHED", "dateUpdated": "2026-10-30T05:52:11.263Z"},
        "containers": {
            "cna": {
                "affected": [
                    {**common, "defaultStatus": "unaffected", "versions": commits},
                    {**common, "defaultStatus": "affected", "versions": list(versions)},
                ],
                "title": title,
            }
        },
    }


RECORDS = (
    # As published: affected from 5.7, and no fix for 6.12 is known to the list.
    record("CVE-2025-38206", "exfat: fix double free in delayed_free", ["fs/exfat/nls.c"],
           since("5.7", "5.10.239", "5.15.186", "6.15.4", "6.16")),
    record("CVE-2026-20001", "mm: vmscan: an invented fault", ["mm/vmscan.c"], since("5.7", "6.12.111", "7.1")),
    record("CVE-2026-20003", "brought in later", ["mm/vmscan.c"], since("6.12.109", "6.12.111", "7.1", before="0")),
    record("CVE-2026-30001", "fixed in time", ["mm/vmscan.c"], since("5.7", "6.12.90", "7.0")),
    record("CVE-2026-30002", "fixed before there was a 6.12", ["mm/vmscan.c"], since("4.1", "5.10.3", "6.11")),
    record("CVE-2026-30003", "renamed since", ["mm/no-such-file.c", "fs/exfat/nls.c"], since("5.7", "7.1")),
    record("CVE-2026-30004", "a script", ["scripts/gen.pl"], since("5.7", "7.1")),
    record("CVE-2026-30005", "of another architecture", ["arch/arm64/kvm/arm.c"], since("5.7", "7.1")),
    record("CVE-2026-10001", "the changelog knows better", ["kernel/events/core.c"], since("5.7", "7.1")),
)  # fmt: skip


def write_list(folder: Path) -> Path:
    """A copy of the kernel's list, as git leaves it."""
    for one in RECORDS:
        cve = one["cveMetadata"]["cveID"]
        path = folder / f"cve/published/{cve.split('-')[1]}/{cve}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one, indent=4))
        path.with_suffix(".sha1").write_text("13d8de1b6568dcc31a95534ced16bc0c9a67bc15\n")
    rejected = folder / "cve/rejected/2026/CVE-2026-20002"
    rejected.parent.mkdir(parents=True, exist_ok=True)
    rejected.write_text("")
    return folder


def empty(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir()
    return folder
