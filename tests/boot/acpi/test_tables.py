# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tables that name memory by themselves, without AML: the kernel does not touch what they must not have.

Each starts Debian's kernel with the payload first, and sees the memory change.
"""

from pathlib import Path

import pytest

from tools.attack.acpi import attempts
from tools.attack.acpi.host import Side

# Without an interrupt controller it does not come as far as AML.
_EARLY = {"local APIC", "I/O APIC"}


@pytest.mark.parametrize("name", attempts.TABLES)
def test_an_address_in_a_table(name: str, undefended: Side, shipped: Side, iasl: Path, tmp_path: Path) -> None:
    """Registers, interrupt controllers, the wakeup mailbox, PCI's configuration, the FACS."""
    attempt = attempts.TABLES[name]
    broken = attempt(undefended, tmp_path / "undefended", iasl)
    assert broken.obeyed, broken.boot.said
    held = attempt(shipped, tmp_path / "shipped", iasl)
    assert not held.obeyed
    assert held.ran or name in _EARLY
