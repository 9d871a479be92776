# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""OCI: what artifacts are, registries over HTTP, layouts in folders, plain files."""
