# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What confine.py and those who start it agree on; importing confine.py itself takes long."""

INSIDE = 1000
"""uid and gid that a step sees itself as."""
FAILED = 125
"""Exit status when there is no sandbox to run anything in."""
PARENT = "SEV_ARTIFACTS_PARENT"
"""The variable with the process id of whom a sandbox must not outlive."""
