# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What launcher and agent call the same; initramfs/agent/src has it too."""

AGENT_PORT = "org.sev-artifacts.agent.0"
"""Name of the virtio-serial port that the agent speaks on (channel/port.rs, NAME)."""

ROOTFS_SERIAL = "rootfs"
"""Serial number of the virtio-blk disk that holds the container's root file system (root/rootfs.rs, SERIAL)."""

FOLDER = "folder{}"
"""Serial of a disk with a folder of the host, or tag of a share, by its number in the document (root/folders.rs)."""

UNBOUND = "sev_agent.unbound"
"""The word on the kernel command line that leaves it to the host what runs (cmdline.rs)."""

WORKLOAD = "sev_agent.workload"
"""The key whose value is the SHA-256 of the workload document (cmdline.rs)."""


def with_binding(cmdline: str, word: str) -> str:
    """A kernel command line that says who decides what runs: `word` comes last."""
    return f"{cmdline} {word}" if cmdline else word


def workload_word(sha256: str) -> str:
    """The word for the document with this digest, 64 lower-case hexadecimal digits."""
    return f"{WORKLOAD}={sha256}"
