# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The life of one QEMU process."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.host.qemu_program import ENVIRONMENT, executable
from tools.launcher.host.qemu_user import QemuUser, failure

_PR_SET_PDEATHSIG = 1
# Kept of what QEMU says; the guest can provoke messages, so there must be a bound.
_TAIL_BYTES = 16 << 10
_TAIL_LINES = 12
# QEMU says this about our own fw_cfg item etc/boot/kernel, and it is no fault.
_NOISE = 'fw_cfg item names should be prefixed with "opt/"'


def before_exec(user: QemuUser | None, *, lock_memory: bool = False) -> Callable[[], None]:
    """A function for the child between fork and exec: it becomes the user, and must not outlive this launcher."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        if user is not None:
            try:
                user.become(lock_memory=lock_memory)
            except OSError as error:
                os.write(2, f"sev-launch: QEMU cannot be uid {user.uid}: {failure(error)}\n".encode())
                os._exit(125)
        # After the change of user, which would clear it.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl could take effect
            os._exit(125)

    return in_child


def tail(text: bytes) -> tuple[str, ...]:
    """The last lines of a log as text; errors.printable makes them safe when they are shown."""
    split = text[-_TAIL_BYTES:].decode("utf-8", "replace").replace("\r", "\n").split("\n")
    return tuple(line[:400] for line in split if line.strip())[-_TAIL_LINES:]


class Qemu:
    """A running QEMU in a session of its own, so that Ctrl-C reaches the workload and not it.

    It is `user`, has the `descriptors` open, and nothing of this process's environment. `program`: what is run, open
    (QemuProgram.descriptor); None: what lies at the path that is the first word.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        user: QemuUser | None = None,
        lock_memory: bool = False,
        descriptors: Sequence[int] = (),
        program: int | None = None,
    ) -> None:
        running = executable(program)
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(*descriptors, *running.pop("pass_fds", ())),
                **running,
                preexec_fn=before_exec(user, lock_memory=lock_memory),  # noqa: PLW1509  this program has one thread
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"cannot be run: {error}", where=argv[0]) from None
        assert self._process.stderr is not None
        self.stderr = self._process.stderr
        os.set_blocking(self.stderr.fileno(), False)
        self._said = bytearray()
        self.stderr_open = True

    def drain(self) -> None:
        """Take what QEMU wrote to stderr, without waiting."""
        while self.stderr_open:
            try:
                data = os.read(self.stderr.fileno(), 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.stderr_open = bool(data)
            self._said += data
            del self._said[:-_TAIL_BYTES]

    @property
    def pid(self) -> int:
        """Its process number, which is also that of its session and group."""
        return self._process.pid

    @property
    def said(self) -> tuple[str, ...]:
        """The last lines of QEMU's stderr."""
        self.drain()
        return tuple(line for line in tail(bytes(self._said)) if _NOISE not in line)

    @property
    def ended(self) -> int | None:
        """QEMU's exit status (negative: signal), None while it runs."""
        return self._process.poll()

    def stop(self, *, grace: float = 0.0) -> None:
        """Wait up to `grace` seconds for QEMU to end by itself, then kill it; returns when it is gone."""
        try:
            if grace > 0:
                self._process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self.drain()
            self.stderr.close()
            self.stderr_open = False
