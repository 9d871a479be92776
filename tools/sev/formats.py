# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Names and schema numbers of our own files; docs/schemas/ has a JSON Schema for each."""

MKFS_NAME = "mkfs.erofs"
"""The program beside the launcher that makes images."""

QEMU_NAME = "qemu-lite"
"""The QEMU beside the launcher."""

SUMS_NAME = "SHA256SUMS"
"""What `sha256sum -c` reads, of every file in the output folder."""

RUNTIME_NAME = "runtime.toml"
RUNTIME_SCHEMA = 5

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

GUEST_TYPE = "application/vnd.sev-artifacts.guest.v1"
FILE_TYPE = "application/vnd.sev-artifacts.file.v1"
SBOM_TYPE = "application/vnd.cyclonedx+json"
LATEST_TYPE = "application/vnd.sev-artifacts.latest.v1"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"
"""Media types of what is published (docs/publishing.md): artifact, files in it, statements about it."""

TITLE, MODE, PROFILE = "org.opencontainers.image.title", "sev-artifacts.mode", "sev-artifacts.profile"
"""Annotations: name and mode of a file, profile of an artifact."""

PROVENANCE = "https://slsa.dev/provenance/v1"
ENDORSEMENT = "urn:sev-artifacts:endorsement:1"
LATEST = "urn:sev-artifacts:latest:1"
BUILD_TYPE = "urn:sev-artifacts:build:1"
"""What statements are: `predicateType`, and the `buildType` of a provenance."""

SUBJECT = "sev-artifacts"
"""Name of the artifact's manifest among the subjects of a statement; the others are its files."""

MANIFEST_NAME, STATEMENTS = "artifact.json", "statements"
"""Beside the files that were pulled: the artifact's manifest, and the folder of statements about it."""


def latest_tag(profile: str) -> str:
    """The tag of the statements "latest" on a profile's artifacts."""
    return f"{profile}.latest"
