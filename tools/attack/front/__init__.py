# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit attack` itself: which attacks there are, how they run, what is printed."""
