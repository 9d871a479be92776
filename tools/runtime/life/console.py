# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A pseudo-terminal between the engine and a terminal in the guest.

    engine ── master ══ slave ── monitor or exec relay ── agent ── the process's own terminal

The slave passes bytes as they are: the guest's terminal echoes and interprets. It is the controlling terminal of
whoever relays, so that the kernel sends that process SIGWINCH when the engine says another size.
"""

import array
import fcntl
import os
import socket
import termios
import tty

from tools.runtime.life.folder import ContainerError

_PATIENCE = 10.0


def open_for(console_socket: str) -> None:
    """Make one, hand its master to the engine's socket; the slave becomes standard input, output and error.

    Engines wait for the end of what these were. The calling process must lead its session and have no terminal: the
    slave controls it from now on.
    """
    master, slave = os.openpty()
    try:
        tty.setraw(slave, termios.TCSANOW)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        _hand_over(master, os.ttyname(slave), console_socket)
        for standard in 0, 1, 2:
            os.dup2(slave, standard)
    finally:
        os.close(slave)
        os.close(master)


def _hand_over(master: int, name: str, path: str) -> None:
    folder, _, file = path.rpartition("/")
    try:
        handle = os.open(folder or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.settimeout(_PATIENCE)
                engine.connect(f"/proc/self/fd/{handle}/{file}")
                rights = array.array("i", [master])
                engine.sendmsg([name.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(handle)
    except OSError as error:
        raise ContainerError(error.strerror or str(error), where=f"--console-socket {path}") from None
