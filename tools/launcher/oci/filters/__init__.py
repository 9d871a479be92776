# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls: OCI's as the document's, the engines' own ones, numbers of calls by their names."""
