# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The findings as VEX: CycloneDX 1.6, beside the SBOM whose components it names. The same findings, the same bytes.

The timestamp is the day of the newest data that went in, not the day of the writing.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from tools.pipeline.report.states import Finding, Report, State

NAME = "vex.cdx.json"
MEDIA_TYPE = "application/vnd.cyclonedx+json"
PREDICATE = "https://cyclonedx.org/bom"
"""What cosign calls it: `verify-attestation --type cyclonedx`."""

_ANALYSIS: Mapping[State, Mapping[str, Any]] = {
    # "exploitable" is CycloneDX's word for: affected, as far as is known.
    State.OPEN: {"state": "exploitable", "response": ["update"]},
    State.UNKNOWN: {"state": "in_triage"},
    State.ABSENT: {"state": "not_affected", "justification": "code_not_present"},
    State.FIXED: {"state": "resolved"},
}


def render(report: Report, *, version: str) -> bytes:
    """The document; `version` is the project's."""
    components = [
        {"type": "operating-system" if name == "linux" else "firmware", "bom-ref": f"source:{name}", "name": name,
         "version": pinned}
        for name, pinned in sorted(report.versions.items())
    ]  # fmt: skip
    properties = [
        {"name": "sev-artifacts:profile", "value": report.profile},
        *({"name": "sev-artifacts:data", "value": f"{what}: {date}"} for what, date in report.data),
        *({"name": "sev-artifacts:unknown", "value": sentence} for sentence in report.unknown),
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": f"{report.date}T00:00:00Z",
            "component": {"type": "application", "bom-ref": "project:sev-artifacts", "name": "sev-artifacts",
                          "version": version},
            "properties": properties,
        },
        "components": components,
        "vulnerabilities": [_vulnerability(finding) for finding in report.findings],
    }  # fmt: skip
    digest = hashlib.sha256(_encode(document)).digest()
    return _encode({**document, "serialNumber": uuid.UUID(bytes=digest[:16], version=5).urn})


def _vulnerability(finding: Finding) -> dict[str, Any]:
    found = {
        "bom-ref": f"{finding.component}:{finding.cve}",
        "id": finding.cve,
        "source": {"name": "CVE", "url": f"https://www.cve.org/CVERecord?id={finding.cve}"},
        "analysis": {**_ANALYSIS[finding.state], "detail": finding.why},
        "affects": [{"ref": f"source:{finding.component}"}],
    }
    if finding.title:
        found["description"] = finding.title
    if finding.fixed_in and finding.state in {State.OPEN, State.UNKNOWN}:
        found["recommendation"] = f"Take {finding.component} {finding.fixed_in} or later."
    return found


def _encode(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
