# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A container's life: its folder, its monitor, hooks, control groups."""
