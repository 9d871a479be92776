# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pods of Kata Containers: the kernel command line that its runtimes compose."""
