# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Launch digests: what the firmware will have measured of a guest, computed before it starts.

digest_file ─┬─ launch_digest ── vmsa
             └─ cpu_signature

The commands `digest` and `check`, and `run` and `show` with an ID block, ask digest_file. What is measured
beside the firmware, and whether a firmware is whole, is in tools/sev, which the pipeline uses as well; what is
computed here it computes by itself (launch_digest says what that is).
"""
