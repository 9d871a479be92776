# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The network of a container's namespace, handed to its guest; docs/runtime-network.md.

netlink   what is said to the kernel about networks, in bytes
links     which interfaces, addresses and routes the namespace has
tap       a tap device, which QEMU gets by its descriptor
redirect  every frame from one interface to another
resolver  an engine's name server that listens where no guest gets: passed on
attach    all that together: attach()
"""
