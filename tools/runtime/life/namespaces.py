# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the monitor does to itself in C's words: namespaces, and whose death it does not outlive."""

import ctypes
import os
import signal

from tools.runtime.life.folder import ContainerError

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h
_SET_DEATH_SIGNAL, _SET_NAME = 1, 15  # PR_SET_PDEATHSIG, PR_SET_NAME of linux/prctl.h


def enter_network(path: str) -> None:
    """Join the network namespace that a file names, or make one ("")."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not path:
        if libc.unshare(_NEW_NETWORK) != 0:
            raise ContainerError(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ContainerError(f"cannot be opened: {error.strerror}", where=f"network namespace {path}") from None
    try:
        if os.path.samestat(os.fstat(handle), os.stat("/proc/self/ns/net")):  # whatever name led there
            raise ContainerError("is the host's own, which no guest can have", where=f"network namespace {path}")
        if libc.setns(handle, _NEW_NETWORK) != 0:
            raise ContainerError(
                f"cannot be joined: {os.strerror(ctypes.get_errno())}", where=f"network namespace {path}"
            )  # fmt: skip
    finally:
        os.close(handle)


def call_oneself(name: str) -> None:
    """The name by which ps and top show this process, of at most 15 bytes."""
    ctypes.CDLL(None).prctl(_SET_NAME, name.encode(), 0, 0, 0)


def end_with(parent: int | None) -> None:
    """Have SIGTERM come when the parent process ends; None: no more. The parent that has ended already counts too."""
    number = 0 if parent is None else signal.SIGTERM
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(number), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
