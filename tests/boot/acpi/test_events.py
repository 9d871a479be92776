# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A method for a general-purpose event: the host runs AML when it likes, long after the guest has started."""

from pathlib import Path

from tools.attack.acpi import events
from tools.attack.acpi.host import Side
from tools.attack.guests.monitor import Monitor


def test_a_method_that_runs_later(undefended: Side, shipped: Side, iasl: Path, tmp_path: Path) -> None:
    """Debian's kernel first: its memory changes."""
    broken = events.method(undefended, tmp_path / "undefended", iasl, connect=Monitor.connect)
    assert broken.ran
    assert broken.obeyed
    held = events.method(shipped, tmp_path / "shipped", iasl, connect=Monitor.connect)
    assert held.ran
    assert not held.obeyed
