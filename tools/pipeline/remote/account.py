# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What came and went, which is said at the end, and what went wrong, which is said once."""

import threading
from collections import Counter

from tools.pipeline.base import ui


class Account:
    """Of one build with one remote, kept by several threads. `where` begins each line about it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._said: set[str] = set()

    def count(self, what: str, number: int = 1) -> None:
        """That so many more of it came or went."""
        with self._lock:
            self._counts[what] += number

    def close(self) -> Counter[str]:
        """What has been counted since the last time; 0 for what has not."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def note(self, text: str, *, once: str) -> None:
        """Tell the user, unless something has been said with the same `once`."""
        with self._lock:
            if once in self._said:
                return
            self._said.add(once)
        ui.line(f"   note: {self._where} {text}")

    def note_left(self, number: int) -> None:
        """Of results that were not sent in time."""
        if number:
            self.note(f"results not sent in time: {number}; the next build sends them", once="left")
