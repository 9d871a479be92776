# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pinned files: what is wanted, what is locked, where it is fetched and kept."""
