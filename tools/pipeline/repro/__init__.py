# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The reproducibility check: the same artifacts, built twice from nothing in environments that differ.

variations ── environments ── plain  ── driver (probe, doit) ──┐
                          └── varied ── driver (probe, doit) ──┴── check ── compare
"""
