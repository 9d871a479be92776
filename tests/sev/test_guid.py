# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""GUIDs beside Python's own."""

import random
import uuid

from tools.sev.guid import guid, guid_text


def test_as_pythons_uuid() -> None:
    for seed in range(50):
        raw = random.Random(seed).randbytes(16)
        text = str(uuid.UUID(bytes_le=raw))
        assert (guid(text), guid_text(raw)) == (raw, text)
