# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Results that builders share: signed records in a registry. What the engine wants of them is engine/remote.py."""
