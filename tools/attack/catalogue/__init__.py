# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Every attack: a folder for each topic, a module for each kind of attack (docs/attack.md)."""
