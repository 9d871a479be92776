# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A host that hands other things to QEMU than it should, and a judge of what the firmware made of them.

A refusal of the RELEASE firmware is silent: the CPU stays in CpuDeadLoop() (edk2, MdePkg/Library/BaseLib), a
loop of a few instructions around PAUSE. That loop is looked for, not the absence of a boot within a time:
what counts is processor time that QEMU itself has used, so a slow or busy machine only takes longer.
"""

import dataclasses
import json
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tools.attack.base.target import Target
from tools.attack.guests.monitor import Monitor
from tools.pipeline.base import children
from tools.pipeline.base.errors import BuildError

# Without any verdict after so much of QEMU's processor time, or so many seconds, something else is wrong.
_CPU_LIMIT, _LIMIT = 120.0, 1800.0
_PERIOD = 0.05  # seconds between two looks at the CPU
_CPU_SECONDS = 0.75  # processor time of QEMU's for which the CPU must be found in the loop …
_SAMPLES = 12  # … in at least so many looks …
_STAYED = 0.8  # … of which so many find it there: any one may meet a timer interrupt …
_REACH = 32  # … and there is within so many bytes
_PAUSE = b"\xf3\x90"
_KERNEL_WORDS = b"Linux version "  # of a kernel that has a serial console; ours has none
_SERIAL = "serial"


class Became(StrEnum):
    """What became of a guest."""

    BOOTED = "the agent spoke"
    STARTED = "the kernel started"
    REFUSED = "the firmware stopped for good"
    ENDED = "QEMU ended"
    STUCK = "neither a boot nor a dead loop"


@dataclass(frozen=True, kw_only=True)
class Host:
    """What a host gives to QEMU. None: no hashes table, no such option."""

    options: tuple[tuple[str, ...], ...]
    firmware: Path
    kernel: bytes | None
    initramfs: bytes | None
    cmdline: str
    table: bytes | None
    blobs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    pflash: str | None = None

    @staticmethod
    def of(target: Target, qemu: Path, binding: Sequence[str] = ("--unbound",)) -> "Host":
        """What the launcher itself would give to an emulated guest; the starting point of every change.

        `binding`: options of `sev-launch show` that say what runs.
        """
        options = show(target.launcher, qemu, "--unprotected", "--accel", "tcg", binding=binding)
        value = {option[0]: option[1] for option in options["options"] if len(option) == 2}
        return Host(
            options=tuple(tuple(option) for option in options["options"]),
            firmware=Path(value["-bios"]),
            kernel=Path(value["-kernel"]).read_bytes(),
            initramfs=Path(value["-initrd"]).read_bytes(),
            cmdline=value["-append"],
            table=bytes.fromhex(options["hashes_table"]),
        )

    def through_pflash(self, target: Target, qemu: Path) -> "Host":
        """The same with the firmware where the launcher puts it for SEV and SEV-ES."""
        options = show(target.launcher, qemu, "--mode", "sev", "--cbit", "51")["options"]
        drive = next(value for name, *values in options for value in values if name == "-drive")
        return dataclasses.replace(self, pflash=drive)

    def argv(self, folder: Path) -> list[str]:
        """QEMU's command line, with every file written to `folder`."""
        files = {"kernel": self.kernel, "initrd": self.initramfs, "hashes.bin": self.table, **self.blobs}
        for name, data in files.items():
            if data is not None:
                (folder / name).write_bytes(data)
        words: list[str] = []
        for option in self.options:
            match option:
                case ("-bios", _) if self.pflash is not None:
                    words += ["-drive", self.pflash]
                case ("-kernel", _):
                    words += [] if self.kernel is None else ["-kernel", "kernel"]
                case ("-initrd", _):
                    words += [] if self.initramfs is None else ["-initrd", "initrd"]
                case ("-append", _):
                    # QEMU takes no command line without a kernel.
                    words += [] if self.kernel is None else ["-append", self.cmdline]
                case ("-device", device) if device.startswith("loader,"):
                    words += [] if self.table is None else ["-device", device]
                case _:
                    words += option
        for name in self.blobs:
            words += ["-fw_cfg", f"name=etc/boot/{name},file={name}"]
        return [*words, "-qmp", "unix:qmp.sock,server=on,wait=off", "-serial", f"file:{_SERIAL}"]


def show(launcher: Path, qemu: Path, *options: str, binding: Sequence[str] = ("--unbound",)) -> dict[str, Any]:
    """What `sev-launch show --json` says."""
    command = [str(launcher), "show", *binding, "--json", "--qemu", str(qemu), *options]
    shown: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return shown


def start(host: Host, folder: Path) -> Became:
    """Start QEMU in the empty `folder` and judge. BuildError when it ends of itself, or nothing can be said."""
    became = watch(host, folder)
    if became in {Became.ENDED, Became.STUCK}:
        # As a mistake in its options would: nothing was seen of the guest.
        said = (folder / "qemu.log").read_text(errors="replace").strip()
        raise BuildError(f"{became}: {said[-200:] or 'without a word'}")
    return became


def watch(host: Host, folder: Path, *, cpu_limit: float = _CPU_LIMIT, until: str = "") -> Became:
    """Start QEMU in the empty `folder`, and say what became of it, whatever that is.

    It is stuck after `cpu_limit` seconds of QEMU's processor time without any sign. `until`: what its kernel must have
    said to count as started.
    """
    argv = host.argv(folder)
    # The folder by its descriptor: a socket's path has at most 107 bytes, a test's folder may have more.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    door = Path("/proc/self/fd") / str(descriptor)
    try:
        with socket.socket(socket.AF_UNIX) as listener, (folder / "qemu.log").open("wb") as log:
            listener.bind(str(door / "agent.sock"))
            listener.listen(1)
            listener.settimeout(_PERIOD)
            with children.running(
                argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            ) as qemu:
                try:
                    return _judge(qemu, listener, door, cpu_limit, until.encode())
                finally:
                    qemu.kill()
    finally:
        os.close(descriptor)


def _judge(
    qemu: "subprocess.Popen[bytes]", listener: socket.socket, door: Path, cpu_limit: float, until: bytes
) -> Became:
    agent: socket.socket | None = None
    monitor: Monitor | None = None
    samples: deque[tuple[int, float]] = deque()
    deadline = time.monotonic() + _LIMIT
    try:
        while time.monotonic() < deadline and not (samples and samples[-1][1] > cpu_limit):
            try:
                if agent is None:
                    agent, _ = listener.accept()
                    agent.settimeout(_PERIOD)
                if agent.recv(1):
                    return Became.BOOTED
                qemu.wait(_LIMIT)  # the end of the stream is the end of QEMU
            except TimeoutError:
                pass
            if qemu.poll() is not None:
                return Became.ENDED
            said = _serial(door)
            if _KERNEL_WORDS in said and until in said:
                return Became.STARTED
            try:
                monitor = monitor or Monitor.connect(door / "qmp.sock", wait=0)
                samples.append((monitor.instruction_pointer(), monitor.cpu_seconds()))
                if stays(samples) and _PAUSE in monitor.memory(samples[-1][0] - _REACH, 2 * _REACH):
                    return Became.REFUSED
            except (ConnectionError, FileNotFoundError, ProcessLookupError):
                continue  # QEMU does not listen yet, or not any more
    finally:
        for end in (agent, monitor):
            if end is not None:
                end.close()
    return Became.STUCK


def _serial(door: Path) -> bytes:
    try:
        return (door / _SERIAL).read_bytes()
    except FileNotFoundError:
        return b""


def stays(samples: deque[tuple[int, float]]) -> bool:
    """Whether the CPU was in one place for the last _CPU_SECONDS; forgets what is older."""
    here, now = samples[-1]
    while len(samples) > _SAMPLES and now - samples[1][1] >= _CPU_SECONDS:
        samples.popleft()
    if len(samples) < _SAMPLES or now - samples[0][1] < _CPU_SECONDS:
        return False
    return sum(abs(at - here) <= _REACH for at, _ in samples) >= _STAYED * len(samples)
