# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From a container image to one disk under dm-verity, and what its config says is to run; docs/bundle.md."""
