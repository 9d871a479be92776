# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A QEMU that lies to its guest where no option of QEMU's does: in fw_cfg, and in the rings of its own devices.

qemu-lite's source and recipe, qemu-patches/VERSION/lies ── qemu.py ── the program, told what to lie by a file
                                                                └── start.py ── a guest's start, and what became of it
"""
