# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The engine's root file system → one disk under dm-verity, kept in a cache; docs/runtime-image.md.

mounts      what overlayfs a root is, and which folders it is made of
inventions  what an engine may have put into its upper layer, and nothing else
identity    by what a layer's folder is known again
store       disks kept by content, within bounds
disk        all that together: disk_of()
folders     a read-only bind mount as a tar in bounds
"""
