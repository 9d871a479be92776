# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A host's own ACPI tables: how they are made, and what becomes of a kernel that gets them.

Access, ASL ── aml.py ── SSDT ──┐
QEMU's tables, patched ─────────┴── tables.py ── QEMU's options ── machine.py ── Boot: memory, log, what AML said
host.py: what a host knows beforehand        attempts.py, events.py: the payloads
"""
