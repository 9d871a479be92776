# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""All of it as JSON: docs/schemas/acceptance.schema.json. Nothing in it names this host or its chip."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.launcher.acceptance.model import Evidence, Guest, Line, Result
from tools.launcher.acceptance.starts import Bench
from tools.launcher.host.qemu_program import version_text

SCHEMA = 1
_MODEL = "model name"


def document(bench: Bench, evidence: Mapping[Guest, Evidence], lines: Sequence[Line]) -> dict[str, Any]:
    """What --json writes."""
    counts = {str(result): sum(line.verdict.result is result for line in lines) for result in Result}
    return {
        "schema": SCHEMA,
        "artifacts": {
            "profile": str(bench.config.profile),
            "version": bench.config.version,
            **{artifact.role: artifact.sha256 for artifact in bench.config.artifacts},
        },
        "host": _host(bench),
        "guests": {str(guest): list(found.why_not) for guest, found in evidence.items()},
        "begun_anew": {
            str(guest): anew
            for guest, found in evidence.items()
            if (anew := [start.anew for start in found.starts.values() if start.anew])
        },
        "checks": [
            {
                "name": line.check.name,
                "says": line.check.says,
                "guest": str(line.guest),
                "result": str(line.verdict.result),
                "seen": line.verdict.seen,
                "control": line.verdict.control,
            }
            for line in lines
        ],
        "counts": counts,
        "seconds": {
            str(guest): {phase: round(value, 4) for phase, value in found.talk.seconds.items()}
            for guest, found in evidence.items()
            if found.talk is not None
        },
        "firmware_pages": list(_pages(evidence)),
    }


def _pages(evidence: Mapping[Guest, Evidence]) -> Iterator[dict[str, Any]]:
    for guest, found in evidence.items():
        if found.pages is not None:
            yield {
                "guest": str(guest),
                "tries": found.pages.tries,
                "seconds": {str(count): round(value, 4) for count, value in found.pages.seconds.items()},
                "microseconds_a_page": round(found.pages.of_one * 1e6, 2),
            }


def _host(bench: Bench) -> dict[str, Any]:
    facts = bench.facts
    encryption = facts.encryption
    return {
        "processor": _processor(),
        "kernel": Path("/proc/sys/kernel/osrelease").read_text("ascii", "replace").strip(),
        "qemu": version_text(bench.qemu.version),
        "accelerator": str(bench.accel),
        "kvm": facts.kvm_error or "can be opened",
        "sev_device": facts.sev_error or "can be opened",
        "encryption": None
        if encryption is None
        else {
            "sev": encryption.sev,
            "sev_es": encryption.sev_es,
            "snp": encryption.snp,
            "cbit": encryption.cbit,
            "reduced_phys_bits": encryption.reduced_phys_bits,
        },
        "kvm_amd": dict(facts.parameters),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, text = line.partition(":")
        if name.strip() == _MODEL:
            return text.strip()
    return "unknown"
