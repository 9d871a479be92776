# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Hosts that misbehave: they start guests, and see what becomes of them."""
