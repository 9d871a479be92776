# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Names and schema numbers of our own files; docs/schemas/ has a JSON Schema for each."""

MKFS_NAME = "mkfs.erofs"
"""The program beside the launcher that makes images."""

SUMS_NAME = "SHA256SUMS"
"""What `sha256sum -c` reads, of every file in the output folder."""

RUNTIME_NAME = "runtime.toml"
RUNTIME_SCHEMA = 4

DIGESTS_NAME = "launch-digests.json"
DIGESTS_SCHEMA = 2
DIGESTS_VCPUS = 64
"""Its tables go from 1 to this many vCPUs."""

DISK, WORKLOAD = "disk.img", "workload.json"
"""In a bundle: the layers with their hash tree, and the workload document."""
