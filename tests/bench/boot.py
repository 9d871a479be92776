# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From power-on to the first word of the guest's user space, emulated: our artifacts beside Debian's."""

import dataclasses
import shutil
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import debian, report
from tests.bench.report import Part, Row, say, seconds, spread
from tools.launcher.channel import protocol
from tools.launcher.channel.session import listen
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import Artifact, RuntimeConfig, load_config
from tools.launcher.guest import command_line
from tools.launcher.guest.binding import UNBOUND, compose
from tools.launcher.guest.qemu import Qemu
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import SOCKET, Staging
from tools.launcher.host import qemu_program
from tools.launcher.host.qemu_program import QemuProgram
from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

_LIMIT = 300.0  # seconds until a guest that says nothing ends the benchmark
_SHARE = 1 / 3  # of Debian's time; the goal


@dataclass(frozen=True, kw_only=True)
class _Guest:
    """A staged guest: its folder, QEMU's command line, and what it says when it is ready."""

    name: str
    folder: Path
    argv: list[str]
    length: int
    ready: Callable[[bytes], bool]

    def time(self) -> float:
        """Seconds from starting QEMU to the last byte of the guest's first message."""
        (self.folder / SOCKET).unlink(missing_ok=True)
        listener = listen(self.folder, SOCKET)
        started = time.perf_counter()
        qemu = Qemu(self.argv, cwd=self.folder)
        try:
            message = self._receive(listener, qemu, deadline=started + _LIMIT)
            took = time.perf_counter() - started
        finally:
            qemu.stop()
            listener.close()
        if not self.ready(message):
            raise BuildError(f"said {message!r}, not that it is ready", where=self.name)
        return took

    def _receive(self, listener: socket.socket, qemu: Qemu, *, deadline: float) -> bytes:
        """The first `length` bytes on the agent's port."""
        received = b""
        connection: socket.socket | None = None
        listener.settimeout(0.5)
        try:
            while len(received) < self.length:
                if qemu.ended is not None or time.perf_counter() > deadline:
                    raise self._silent(qemu)
                try:
                    if connection is None:
                        connection, _ = listener.accept()
                        connection.settimeout(0.5)
                    chunk = connection.recv(self.length - len(received))
                except TimeoutError:
                    continue
                if not chunk:
                    raise self._silent(qemu)
                received += chunk
        finally:
            if connection is not None:
                connection.close()
        return received

    def _silent(self, qemu: Qemu) -> BuildError:
        state = f"runs, {_LIMIT:.0f} s over" if qemu.ended is None else f"ended with status {qemu.ended}"
        words = " / ".join(qemu.said)
        return BuildError(f"the guest is not ready and QEMU {state} {words}".strip(), where=self.name)


def measure(project: Project, *, runs: int) -> Part:
    """Boot both in turn, `runs` times after one boot each that is not counted."""
    ours = load_config(project.out(project.recipes.profile(DEFAULT_PROFILE)) / "runtime.toml")
    if ours.initramfs is None:
        raise BuildError("has its initramfs built in", where=str(ours.path), hint="measure carry = beside")
    folder = report.folder(project) / "boot"
    if folder.exists():
        shutil.rmtree(folder)
    qemu = qemu_program.find_qemu(str(_qemu_wrapper(project, folder)))
    theirs, version = _debian_config(project, ours, folder)
    hello = protocol.HEADER.size + len(protocol.MAGIC)
    # fmt: off
    guests = (
        _stage("ours", ours, qemu, folder, length=hello, ready=_is_hello),
        _stage("debian", theirs, qemu, folder, length=len(debian.MARKER), ready=lambda m: m == debian.MARKER),
    )
    # fmt: on
    times: dict[str, list[float]] = {guest.name: [] for guest in guests}
    for number in range(runs + 1):
        took = {guest.name: guest.time() for guest in guests}
        counted = f"{number}/{runs}" if number else "not counted"
        say(f"boot {counted}: ours {seconds(took['ours'])}, Debian's {seconds(took['debian'])}")
        if number:
            for name, value in took.items():
                times[name].append(value)
    mine, other = (statistics.median(times[name]) for name in ("ours", "debian"))
    row = Row(
        what="power-on to agent ready under TCG, beside Debian's cloud kernel and initrd",
        measured=seconds(mine),
        beside=f"{seconds(other)} (ours is {mine / other:.0%})",
        goal="at most a third",
        met=mine <= other * _SHARE,
    )
    data = {
        "ours": spread(times["ours"]),
        "debian": spread(times["debian"]),
        "share": round(mine / other, 4),
        "debian_kernel": {"version": version, "bytes": theirs.kernel.size},
        "debian_initrd_bytes": None if theirs.initramfs is None else theirs.initramfs.size,
        "qemu": qemu_program.version_text(qemu.version),
    }
    return Part(rows=(row,), data=data)


def _is_hello(message: bytes) -> bool:
    kind, flags, reserved, process, _ = protocol.HEADER.unpack_from(message)
    rest = message[protocol.HEADER.size :]
    return (kind, flags, reserved, process, rest) == (protocol.Kind.HELLO, 0, 0, 0, protocol.MAGIC)


def _stage(
    name: str,
    config: RuntimeConfig,
    qemu: QemuProgram,
    folder: Path,
    *,
    length: int,
    ready: Callable[[bytes], bool],
) -> _Guest:
    """Everything as sev-launch does it for an unprotected guest, hashes table included, but for the disk."""
    private = folder / name
    private.mkdir(parents=True)
    spec = Spec(
        config=config,
        qemu=qemu,
        firmware=artifacts.read_firmware(config),
        protection=None,
        cbit=None,
        cmdline=compose(config, append="", binding=UNBOUND, verity=None, rootfs=None),
        binding=UNBOUND,
    )
    staged = Staging(spec, private).files
    argv = command_line.argv(command_line.build(spec, accel=Accel.TCG, files=staged))
    return _Guest(name=name, folder=private, argv=argv, length=length, ready=ready)


def _debian_config(project: Project, ours: RuntimeConfig, parent: Path) -> tuple[RuntimeConfig, str]:
    """Our config with Debian's kernel and initrd: machine, devices and firmware stay."""
    kernel, initrd, version = debian.build(project, parent / "debian-build")
    folder = parent / "debian-artifacts"
    folder.mkdir()
    for name, source in (
        ("vmlinuz", kernel),
        ("initrd.img", initrd),
        (ours.firmware.file, ours.path.parent / ours.firmware.file),
    ):
        shutil.copyfile(source, folder / name)
    # As quiet as ours; without the word for an agent that is not there.
    words = [word for word in ours.cmdline.split() if not word.startswith("sev_agent.")]
    config = dataclasses.replace(
        ours,
        path=folder / "runtime.toml",
        kernel=_artifact("kernel", folder / "vmlinuz"),
        initramfs=_artifact("initramfs", folder / "initrd.img"),
        cmdline=" ".join(words),
    )
    return config, version


def _artifact(role: str, path: Path) -> Artifact:
    return Artifact(role=role, file=path.name, sha256=files.of_file(path), size=path.stat().st_size)


def _qemu_wrapper(project: Project, folder: Path) -> Path:
    """QEMU of the boot tree as a program on this host: the tree's /usr lies on top of the host's."""
    folder.mkdir(parents=True)
    path = folder / "qemu-system-x86_64"
    usr = project.trees.ensure("boot").path / "usr"
    argv = f"--die-with-parent --dev-bind / / --ro-bind '{usr}' /usr -- /usr/bin/qemu-system-x86_64"
    path.write_text(f'#!/bin/sh\nexec bwrap {argv} "$@"\n')
    path.chmod(0o755)
    return path
