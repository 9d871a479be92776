# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept, and who is believed: files by their digests, records of results, their seals and locks."""
