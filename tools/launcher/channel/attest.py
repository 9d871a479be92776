# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""REPORT, the answer to ATTEST: an attestation report that the host asked for (docs/protocol.md)."""

import struct
from dataclasses import dataclass

from tools.launcher.channel.payload import MESSAGE_MAX, need

REPORT_MAX = 16 << 10
AUXBLOB_MAX = 32 << 10
"""Bytes that the agent sends at most."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """`failure`: why there is none, in the agent's words; else the report, and certificates if the guest has any."""

    failure: str | None = None
    provider: str = ""
    report: bytes = b""
    auxblob: bytes = b""


def decode_report(process: int, payload: bytes) -> Report:
    """What a REPORT says; ProtocolError when it is none."""
    need(process == 0, "REPORT for a process")
    need(len(payload) >= 4 and payload[0] in (0, 1) and not any(payload[1:4]), "REPORT with values that mean nothing")
    said, rest = _counted(payload[4:], MESSAGE_MAX)
    report, rest = _counted(rest, REPORT_MAX)
    auxblob, rest = _counted(rest, AUXBLOB_MAX)
    need(not rest, "REPORT with more than it needs")
    text = said.decode("utf-8", "replace")
    if payload[0]:
        need(not report and not auxblob, "REPORT that failed, with a report")
        return Report(failure=text or "no reason given")
    need(bool(report), "REPORT without one")
    return Report(provider=text, report=report, auxblob=auxblob)


def _counted(data: bytes, most: int) -> tuple[bytes, bytes]:
    need(len(data) >= 4, "REPORT that ends too early")
    (length,) = struct.unpack_from("<I", data)
    need(length <= min(most, len(data) - 4), f"REPORT with a piece of {length} bytes")
    return data[4 : 4 + length], data[4 + length :]
