# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Errors, progress, ambient facts, files: what every room of the pipeline uses."""
