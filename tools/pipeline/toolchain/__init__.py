# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tool trees: root file systems for build steps, from pinned Debian packages."""
