# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Chance and the date, for what makes no artifact: markers, nonces and a key of one run, certificates valid today."""

import os
from datetime import UTC, datetime


def chance(size: int) -> bytes:
    """So many bytes that nobody has seen before."""
    return os.urandom(size)


def now() -> datetime:
    """The time, for the validity of certificates."""
    return datetime.now(UTC)
