# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Artifacts out of a registry: everything checked, then placed at once (docs/pull.md).

connection.py ── registry.py ── manifest, statements ── tools.launcher.trust ── fetch.py ── folder.py
"""
