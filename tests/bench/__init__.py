# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: `./doit bench`, or one alone with `./doit bench:NAME`. docs/benchmarks.md explains them."""
