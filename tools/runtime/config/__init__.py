# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-runtime.toml, annotations, and what both leave open."""
