# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of builds: what the pipeline costs beside bare tools, and what a second build of the same costs."""
