# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Builds that lack one defence each: the same payload must succeed against them, or nothing was shown."""
