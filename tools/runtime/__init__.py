# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The OCI runtime: an engine's container as a guest. Standard library only, as the launcher, whose modules it uses."""
