# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Launch digests: what the firmware will have measured of a guest, computed before it starts.

digest_command ─┬─ digest_file ─┬─ launch_digest ─┬─ vmsa
                │               │                 └─ firmware_check
                └───────────────┴─ cpu_models

`digest` is digest_command; `check`, and `run` and `show` with an ID block, ask digest_file. The folder above
has what every start needs as well: artifacts, cmdline, firmware (the footer) and hashes (QEMU's table).
"""
