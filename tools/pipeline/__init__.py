# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Builds the SEV guest artifacts; see docs/architecture.md."""
