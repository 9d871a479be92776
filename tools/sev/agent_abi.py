# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The names by which launcher and agent find each other's devices; initramfs/agent/src has the same."""

AGENT_PORT = "org.sev-artifacts.agent.0"
"""Name of the virtio-serial port that the agent speaks on (channel/port.rs, NAME)."""

ROOTFS_SERIAL = "rootfs"
"""Serial number of the virtio-blk disk that holds the container's root file system (root/rootfs.rs, SERIAL)."""
