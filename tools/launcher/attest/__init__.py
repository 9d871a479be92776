# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify`: is this the guest that was meant? For the relying party; nothing here starts a guest.

verify ─┬─ verify_report ──────┬─ certificates ┄┄ signature ── endorsement
        │                      └─ report
        ├─ verify_measurement ── measurement
        └─ inputs ── expected

Both forms of the command (cli/verify.py) use inputs, expected and checks; what judges a report uses checks and
report. The dotted line is a late import: signature needs the package `cryptography`, all else Python alone.
"""
