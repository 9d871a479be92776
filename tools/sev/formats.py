# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Names and schema numbers of our own files; docs/schemas/ has a JSON Schema for each."""

MKFS_NAME = "mkfs.erofs"
"""The program beside the launcher that makes images."""

SUMS_NAME = "SHA256SUMS"
"""What `sha256sum -c` reads, of every file in the output folder."""

RUNTIME_NAME = "runtime.toml"
RUNTIME_SCHEMA = 4

KERNEL_NAME = "vmlinuz"

NETWORK = "-network"
"""What a profile's second kernel, for guests with a network, has in the names of its files."""

DIGESTS_NAME = "launch-digests.json"
DIGESTS_SCHEMA = 2
DIGESTS_VCPUS = 64
"""Its tables go from 1 to this many vCPUs."""


def with_addition(name: str, addition: str) -> str:
    """The name with that before its suffix: launch-digests.json → launch-digests-network.json."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}{addition}{dot}{suffix}"


def digests_beside(config: str) -> str:
    """The name of the launch digests beside a runtime config of that name."""
    network = config == with_addition(RUNTIME_NAME, NETWORK)
    return with_addition(DIGESTS_NAME, NETWORK) if network else DIGESTS_NAME


DISK, WORKLOAD = "disk.img", "workload.json"
"""In a bundle: the layers with their hash tree, and the workload document."""
