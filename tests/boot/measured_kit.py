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
import re
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

_LIMIT = 300.0  # seconds without any verdict, after which something else is wrong
_PERIOD = 0.05  # seconds between two looks at the CPU
_CPU_SECONDS = 0.75  # processor time of QEMU's for which the CPU must be found in the loop …
_SAMPLES = 12  # … in at least so many looks …
_STAYED = 0.8  # … of which so many find it there: any one may meet a timer interrupt …
_REACH = 32  # … and there is within so many bytes
_PAUSE = b"\xf3\x90"
_TICKS = os.sysconf("SC_CLK_TCK")


class Verdict(StrEnum):
    """What became of a guest."""

    BOOTED = "the agent spoke"
    REFUSED = "the firmware is in its dead loop"
    ENDED = "QEMU ended"


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
    def of(launcher: Path, qemu: Path, binding: Sequence[str] = ("--unbound",)) -> "Host":
        """What the launcher itself would give to an emulated guest; the starting point of every change."""
        options = show(launcher, qemu, "--unprotected", "--accel", "tcg", binding=binding)
        value = {option[0]: option[1] for option in options["options"] if len(option) == 2}
        return Host(
            options=tuple(tuple(option) for option in options["options"]),
            firmware=Path(value["-bios"]),
            kernel=Path(value["-kernel"]).read_bytes(),
            initramfs=Path(value["-initrd"]).read_bytes(),
            cmdline=value["-append"],
            table=bytes.fromhex(options["hashes_table"]),
        )

    def through_pflash(self, launcher: Path, qemu: Path) -> "Host":
        """The same with the firmware where the launcher puts it for SEV and SEV-ES."""
        options = show(launcher, qemu, "--mode", "sev", "--cbit", "51")["options"]
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
        return [*words, "-qmp", "unix:qmp.sock,server=on,wait=off"]


def show(launcher: Path, qemu: Path, *options: str, binding: Sequence[str] = ("--unbound",)) -> dict[str, Any]:
    """What `sev-launch show --json` says."""
    command = [str(launcher), "show", *binding, "--json", "--qemu", str(qemu), *options]
    shown: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return shown


def verdicts(hosts: Mapping[str, Host], folder: Path) -> dict[str, Verdict]:
    """What becomes of each; as many at once as there are processors, so all of them under the same load."""
    for number, _ in enumerate(hosts):
        (folder / str(number)).mkdir()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(start, hosts.values(), (folder / str(number) for number, _ in enumerate(hosts)))
        return dict(zip(hosts, found, strict=True))


def start(host: Host, folder: Path) -> Verdict:
    """Start QEMU in the empty `folder` and judge."""
    argv = host.argv(folder)
    # The folder by its descriptor: a socket's path has at most 107 bytes, a test's folder may have more.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    door = Path("/proc/self/fd") / str(descriptor)
    try:
        with socket.socket(socket.AF_UNIX) as listener, (folder / "qemu.log").open("wb") as log:
            listener.bind(str(door / "agent.sock"))
            listener.listen(1)
            listener.settimeout(_PERIOD)
            qemu = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                verdict = _judge(qemu, listener, door)
            finally:
                qemu.kill()
                qemu.wait()
    finally:
        os.close(descriptor)
    if verdict is Verdict.ENDED:
        print((folder / "qemu.log").read_text(errors="replace"))  # shown when the test fails
    return verdict


def _judge(qemu: "subprocess.Popen[bytes]", listener: socket.socket, door: Path) -> Verdict:
    agent: socket.socket | None = None
    monitor: Monitor | None = None
    samples: deque[tuple[int, float]] = deque()
    deadline = time.monotonic() + _LIMIT
    try:
        while time.monotonic() < deadline:
            try:
                if agent is None:
                    agent, _ = listener.accept()
                    agent.settimeout(_PERIOD)
                if agent.recv(1):
                    return Verdict.BOOTED
                qemu.wait(_LIMIT)  # the end of the stream is the end of QEMU
            except TimeoutError:
                pass
            if qemu.poll() is not None:
                return Verdict.ENDED
            try:
                monitor = monitor or Monitor(door / "qmp.sock")
                samples.append((monitor.instruction_pointer(), monitor.cpu_seconds()))
                if stays(samples) and _PAUSE in monitor.memory(samples[-1][0] - _REACH, 2 * _REACH):
                    return Verdict.REFUSED
            except (ConnectionError, FileNotFoundError, ProcessLookupError):
                continue  # QEMU does not listen yet, or not any more
    finally:
        for end in (agent, monitor):
            if end is not None:
                end.close()
    raise AssertionError(f"neither a boot nor a dead loop within {_LIMIT:g} s: {samples}")


def stays(samples: deque[tuple[int, float]]) -> bool:
    """Whether the CPU was in one place for the last _CPU_SECONDS; forgets what is older."""
    here, now = samples[-1]
    while len(samples) > _SAMPLES and now - samples[1][1] >= _CPU_SECONDS:
        samples.popleft()
    if len(samples) < _SAMPLES or now - samples[0][1] < _CPU_SECONDS:
        return False
    return sum(abs(at - here) <= _REACH for at, _ in samples) >= _STAYED * len(samples)


class Monitor:
    """QEMU's machine protocol (QMP), as much of it as the judge needs."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LIMIT)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rwb")
        # Not the child's id: between us and QEMU stands the wrapper that gives it the pinned tree.
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self._stat = Path("/proc") / str(int.from_bytes(credentials[:4], "little")) / "stat"
        self._receive()  # the greeting
        self._execute("qmp_capabilities")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def cpu_seconds(self) -> float:
        """Processor time that QEMU has used."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime, proc(5)

    def instruction_pointer(self) -> int:
        """The first CPU's. Stopped for that: the emulator keeps it current between blocks of code only."""
        self._execute("stop")
        text = self._human("info registers")
        self._execute("cont")
        found = re.search(r"\b[RE]IP=([0-9a-f]+)", text)
        assert found, text
        return int(found[1], 16)

    def memory(self, address: int, size: int) -> bytes:
        """As the CPU sees it; empty where nothing is mapped."""
        text = self._human(f"x /{size}xb {max(0, address):#x}")
        return bytes(int(byte, 16) for byte in re.findall(r"\b0x([0-9a-f]{2})\b", text))

    def _human(self, line: str) -> str:
        return str(self._execute("human-monitor-command", **{"command-line": line}))

    def _execute(self, command: str, **arguments: str) -> object:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._stream.flush()
        while True:
            message = self._receive()
            if "return" in message:
                return message["return"]
            assert "event" in message, message

    def _receive(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise ConnectionResetError
        message: dict[str, Any] = json.loads(line)
        return message
