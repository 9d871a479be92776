# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A network of its own for a process, in which there is loopback and one server: the registry.

worker ── TCP on its own loopback ── a socket in the file system ── TCP on ours ── registry
"""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

from tests.loopback import Relay, to

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h
_INTERFACE = "16sH22x"  # struct ifreq


def isolate() -> None:
    """Leave the network, before there are threads; who is not root does it in a user namespace. OSError if it fails."""
    user, group, root = os.getuid(), os.getgid(), os.geteuid() == 0
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEWNET if root else _NEWNET | _NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    if not root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack(_INTERFACE, b"lo", 0))
        flags = struct.unpack(_INTERFACE, asked)[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack(_INTERFACE, b"lo", flags | _UP))


def interfaces() -> list[str]:
    """Names of this process's network interfaces."""
    return [name for _, name in socket.if_nameindex()]


def to_port(path: Path, port: int) -> Relay:
    """From a socket in the file system to a port of this network."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    return Relay(to(port), listener=listener)


def to_path(path: Path) -> str:
    """From a port of this network, HOST:PORT, which is given back, to a socket in the file system."""

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(path))
        return made

    return Relay(connect).host
