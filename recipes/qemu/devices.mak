# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# What qemu-lite has of devices, for configs/devices/x86_64-softmmu/: nothing else is on by default. devices.txt beside
# this file lists what comes of it.
CONFIG_Q35=y
CONFIG_SEV=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_SERIAL=y
CONFIG_VIRTIO_RNG=y
# host folders that a workload may write to
CONFIG_VIRTIO_9P=y
# the debug profile's logs, of kernel and firmware
CONFIG_SERIAL_ISA=y
CONFIG_ISA_DEBUG=y
# an injected hashes table: the firmware's verification without SEV
CONFIG_GENERIC_LOADER=y
