# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify`: is this the guest that was meant? For the relying party; nothing here starts a guest.

verify ─┬─ verify_report ──────┬─ certificates ┄┄ signature ── endorsement
        │                      └─ report
        ├─ verify_measurement ── measurement
        └─ inputs ── expected

Both forms of the command use inputs, expected and checks; what judges a report uses checks and report. The
dotted line is a late import: signature needs the package `cryptography`, all else Python alone. The folder
above gives arguments, config, errors, subcommand and ui; standalone.py there lists the command.
"""
