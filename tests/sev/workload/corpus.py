# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The documents that every reader of workload documents is tested with, the agent's too."""

from collections.abc import Iterator
from pathlib import Path

PATH = "initramfs/agent/src/tests/documents.txt"


def documents(repository: Path) -> Iterator[tuple[bool, str, bytes]]:
    """Whether it must be accepted, what was changed in the first one, and its bytes."""
    whole = ""
    for line in (repository / PATH).read_text().splitlines():
        if line.startswith("#"):
            continue
        sign, text = line[0], line[2:]
        if not whole:
            whole = text
            yield True, "", whole.encode()
            continue
        old, new = text.split(" =>")
        assert whole.count(old) == 1, f"{old} stands {whole.count(old)} times in the document"
        yield sign == "+", text, whole.replace(old, new.removeprefix(" ")).encode()
