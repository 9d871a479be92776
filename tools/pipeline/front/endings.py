# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is to be done when the tasks of a run have ended, well or not: what runs beside them comes to its end."""

from collections.abc import Callable

_ENDINGS: list[Callable[[], None]] = []


def add(ending: Callable[[], None]) -> None:
    """Call it after the last task. An interrupted run calls nothing: its process ends."""
    _ENDINGS.append(ending)


def run() -> None:
    """Call all, once."""
    while _ENDINGS:
        _ENDINGS.pop(0)()
