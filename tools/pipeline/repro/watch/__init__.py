# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit rebuild --watch`: a rebuilder as a service.

registry ── published.py: what is there ─┐
memory.py: what became of it ────────────┴─ watcher.py ── rebuilding.py: a clone, ./doit rebuild, ./doit endorse
"""
