# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest's memory in a stand-in's process, as it lies in a QEMU's."""

import ctypes
import mmap
import os

_GUARD = 16384


def guest_memory(size: int, *, shared: bool) -> memoryview:
    """`size` bytes, a mapping of their own: a memfd's if `shared`, else private, between pages that nobody may read.

    As QEMU does (qemu_ram_mmap() of util/mmap-alloc.c), it is mapped with these pages at once. Pages that are mapped
    before and after it need not lie around it, and the kernel makes neighbours that are alike one mapping.
    """
    if shared:
        descriptor = os.memfd_create("memory-backend-memfd")
        os.ftruncate(descriptor, size)
        return memoryview(mmap.mmap(descriptor, size, mmap.MAP_SHARED))
    whole = mmap.mmap(-1, size + 2 * _GUARD, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, _GUARD + size):
        page = ctypes.byref(ctypes.c_char.from_buffer(whole, at))
        if libc.mprotect(page, ctypes.c_size_t(_GUARD), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return memoryview(whole)[_GUARD:-_GUARD]
