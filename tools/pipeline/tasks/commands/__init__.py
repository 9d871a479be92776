# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What people type after `./doit` beside builds: one module a family of commands."""
