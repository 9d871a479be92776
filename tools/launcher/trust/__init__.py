# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whose word counts for artifacts: policy, signed statements, the decision over them, and what was seen before.

bundles ── envelope.py (signature of a key of the policy) ── statements.py ─┐
policy.py ──────────────────────────────────────────────────────────────────┼─ decision.py
memory.py: the highest SVN that was seen ───────────────────────────────────┘
"""
