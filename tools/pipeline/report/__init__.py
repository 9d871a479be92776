# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a build: which CVEs it has fixed or lacks, and report.html for people."""
