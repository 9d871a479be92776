# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A virtio device outside of QEMU (vhost-user), which serves its guest honestly or lies to it."""
