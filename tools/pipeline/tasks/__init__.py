# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The task graph in parts: each module yields the doit tasks of one deliverable."""
