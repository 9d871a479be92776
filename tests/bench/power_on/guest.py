# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A staged guest that is started, emulated, until it says on the agent's port that it is ready."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.attack.base.host_tools import HostTools
from tools.launcher.channel import protocol
from tools.launcher.channel.session import listen
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.guest import command_line
from tools.launcher.guest.binding import UNBOUND, compose
from tools.launcher.guest.qemu import Qemu
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import SOCKET, Staging
from tools.launcher.host.qemu_program import QemuProgram, find_qemu
from tools.pipeline.base.errors import BuildError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

HELLO = protocol.HEADER.size + len(protocol.MAGIC)
"""Bytes of the agent's first message."""
_LIMIT = 300.0  # seconds until a guest that says nothing ends the benchmark


@dataclass(kw_only=True)
class Running:
    """A QEMU that was started, and what has come on the agent's port."""

    guest: "Guest"
    qemu: Qemu
    _listener: socket.socket
    _deadline: float
    _connection: socket.socket | None = None
    _received: bytes = b""

    def ready(self, wait: float) -> bool:
        """Whether the guest's first message has come, after up to `wait` seconds.

        BuildError for another message, for a QEMU that ends, and for a guest that has said nothing for too long.
        """
        wanted = self.guest.length - len(self._received)
        try:
            if self._connection is None:
                self._listener.settimeout(wait)
                self._connection, _ = self._listener.accept()
            self._connection.settimeout(wait)
            chunk = self._connection.recv(wanted)
        except (TimeoutError, BlockingIOError):
            if self.qemu.ended is not None or time.perf_counter() > self._deadline:
                raise self._silent() from None
            return False
        if not chunk:
            raise self._silent()
        self._received += chunk
        if len(chunk) < wanted:
            return False
        if not self.guest.said(self._received):
            raise BuildError(f"said {self._received!r}, not that it is ready", where=self.guest.name)
        return True

    def spent(self) -> float:
        """Seconds of processor time of QEMU, all its threads, once it is ready (SO_PEERCRED, unix(7); proc(5))."""
        assert self._connection is not None
        pid = int.from_bytes(self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        if self.qemu.stderr_open:
            self.qemu.stop()
        self._listener.close()
        if self._connection is not None:
            self._connection.close()

    def _silent(self) -> BuildError:
        state = f"runs, {_LIMIT:.0f} s over" if self.qemu.ended is None else f"ended with status {self.qemu.ended}"
        words = " / ".join(self.qemu.said)
        return BuildError(f"the guest is not ready and QEMU {state} {words}".strip(), where=self.guest.name)


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A staged guest: its folder, QEMU's command line, and what it says when it is ready."""

    name: str
    folder: Path
    argv: tuple[str, ...]
    length: int
    said: Callable[[bytes], bool]

    @contextlib.contextmanager
    def started(self, *extra: str) -> Iterator[Running]:
        """QEMU with further options, until the block is left."""
        (self.folder / SOCKET).unlink(missing_ok=True)
        listener = listen(self.folder, SOCKET)
        deadline = time.perf_counter() + _LIMIT
        qemu = Qemu([*self.argv, *extra], cwd=self.folder)
        running = Running(guest=self, qemu=qemu, _listener=listener, _deadline=deadline)
        try:
            yield running
        finally:
            running.close()

    def time(self, *extra: str) -> float:
        """Seconds from starting QEMU, with further options, to the last byte of the guest's first message."""
        return self.cost(*extra)[0]

    def cost(self, *extra: str) -> tuple[float, float]:
        """The same, and QEMU's processor time until then."""
        started = time.perf_counter()
        with self.started(*extra) as running:
            while not running.ready(0.5):
                pass
            return time.perf_counter() - started, running.spent()


def is_hello(message: bytes) -> bool:
    """Whether it is the agent's first message."""
    kind, flags, reserved, process, _ = protocol.HEADER.unpack_from(message)
    rest = message[protocol.HEADER.size :]
    return (kind, flags, reserved, process, rest) == (protocol.Kind.HELLO, 0, 0, 0, protocol.MAGIC)


def stage(
    name: str,
    config: RuntimeConfig,
    qemu: QemuProgram,
    folder: Path,
    *,
    length: int = HELLO,
    said: Callable[[bytes], bool] = is_hello,
    append: str = "",
) -> Guest:
    """Everything as sev-launch does it for an unprotected guest, hashes table included, but for the disk."""
    private = folder / name
    private.mkdir(parents=True)
    spec = Spec(
        config=config,
        qemu=qemu,
        firmware=artifacts.read_firmware(config),
        protection=None,
        cbit=None,
        cmdline=compose(config, append=append, binding=UNBOUND, verity=None, rootfs=None),
        binding=UNBOUND,
    )
    staged = Staging(spec, private).files
    argv = command_line.argv(command_line.build(spec, accel=Accel.TCG, files=staged))
    return Guest(name=name, folder=private, argv=tuple(argv), length=length, said=said)


def boot_qemu(project: Project, folder: Path) -> QemuProgram:
    """QEMU of the boot tree, as a program in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return find_qemu(str(HostTools(folder=folder).wrapper("qemu-system-x86_64", project.trees.ensure("boot"))))


def own_config(project: Project) -> RuntimeConfig:
    """runtime.toml of the default profile's output folder. BuildError where its initramfs is built in."""
    config = load_config(project.out(project.recipes.profile(DEFAULT_PROFILE)) / "runtime.toml")
    if config.initramfs is None:
        raise BuildError("has its initramfs built in", where=str(config.path), hint="measure carry = beside")
    return config
