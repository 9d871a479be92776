# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What both sides know of registries: how a place in one is written, and where docker keeps who the user is."""
