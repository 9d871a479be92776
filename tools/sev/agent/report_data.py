# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""REPORT_DATA of the reports that go through the agent; docs/attestation.md describes it.

The agent computes the same (initramfs/agent/src/reports/domain.rs).
"""

import hashlib
import struct
from enum import StrEnum

DATA_MAX = 64
"""Bytes that somebody may have put into a report; at least one."""


class Domain(StrEnum):
    """Who asked. None of them can get a report that looks like another's."""

    WORKLOAD = "workload"
    HOST = "host"
    AGENT = "agent"
    """Kept for the agent itself, which asks for nothing today."""


def report_data(domain: Domain, data: bytes) -> bytes:
    """The 64 bytes that a report carries for `data`, 1 to 64 bytes."""
    if not 1 <= len(data) <= DATA_MAX:
        raise ValueError(f"has {len(data)} bytes, not 1 to {DATA_MAX}")
    label = f"sev-artifacts report 1 {domain}".encode()
    return hashlib.sha512(label + b"\0" + struct.pack("<I", len(data)) + data).digest()
