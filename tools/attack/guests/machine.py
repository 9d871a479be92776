# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest that boots through its firmware, and whose host has QEMU's monitor and bus in hand.

The host is its own launcher: it leaves out what a launcher would see to (-no-reboot), and goes on speaking to whatever
boots next.
"""

import dataclasses
import hashlib
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.attack.base.lab import Lab
from tools.attack.base.target import Target
from tools.attack.guests.agent import HELLO, READY, RUN, STARTED, Guest, Result, run_entry
from tools.attack.guests.firmware import Host
from tools.attack.guests.monitor import GoneError, Monitor
from tools.pipeline.base import children
from tools.pipeline.base.errors import BuildError
from tools.sev.hashes_table import hashes_table
from tools.sev.workload.document import Document

_QMP, _BUS = "qmp.sock", "bus.sock"
_UNBOUND = "sev_agent.unbound"
_WAIT = 300.0  # seconds for the guest's next words
_DISK = (
    "-drive", "if=none,id=root,format=raw,readonly=on,file=disk",
    "-device", "virtio-blk-pci,drive=root,serial=rootfs,iommu_platform=on,disable-legacy=on",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a guest is started. `document` None: unbound. `disk` None: none.

    `replaced` are values of the launcher's options by the option's name; `options` are added. `reboots`: a reset
    starts it again.
    """

    disk: bytes | None = None
    document: Document | None = None
    options: Sequence[str] = ()
    replaced: Mapping[str, str] = dataclasses.field(default_factory=dict)
    reboots: bool = False


class Bus:
    """QEMU's bus from outside (-qtest, docs/devel/testing/qtest.rst): writes that a device of the host's could make."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_WAIT)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rwb")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def interrupt(self, vector: int, *, mode: int = 0) -> None:
        """A message-signalled interrupt to the first CPU (AMD64 APM volume 2, 16.11); mode 4 is an NMI."""
        self._line(f"writel 0xfee00000 {mode << 8 | vector:#x}")

    def _line(self, line: str) -> None:
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()
        answer = self._stream.readline()
        if not answer.startswith(b"OK"):
            raise BuildError(f"QEMU's bus says {answer!r} to {line}")


class Machine:
    """A started QEMU with its monitor and its bus; leaving the block ends it. `agent` is where the guest's words go."""

    def __init__(self, lab: Lab, target: Target, folder: Path, setup: Setup) -> None:
        self._stack = ExitStack()
        try:
            self._start(lab, target, folder, setup)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, lab: Lab, target: Target, folder: Path, setup: Setup) -> None:
        if setup.disk is not None:
            (folder / "disk").write_bytes(setup.disk)
        argv = _argv(lab, target, folder, setup)
        # The folder by its descriptor: a socket's path has at most 107 bytes (unix(7)).
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        self._stack.callback(os.close, descriptor)
        door = Path("/proc/self/fd") / str(descriptor)
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(door / "agent.sock"))
        listener.listen(1)
        listener.settimeout(_WAIT)
        self._log = folder / "qemu.log"
        log = self._stack.enter_context(self._log.open("wb"))
        running = children.running(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.process = self._stack.enter_context(running)
        self._stack.callback(self.process.kill)
        try:
            self.monitor = self._stack.enter_context(Monitor.connect(folder / _QMP, alive=self.alive))
        except GoneError:
            raise BuildError(f"QEMU does not start: {self.said or 'without a word'}") from None
        self.bus = Bus(door / _BUS)
        self._stack.callback(self.bus.close)
        self.agent, _ = listener.accept()
        self._stack.callback(self.agent.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def alive(self) -> bool:
        """Whether QEMU runs."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """The end of what QEMU says."""
        return self._log.read_text(errors="replace").strip()[-200:]


class Speaker(Guest):
    """The host's side of the conversation with whatever boots on such a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.process = machine.process
        self.link = machine.agent
        self.link.settimeout(_WAIT)
        self._buffer = b""

    def start(self, document: Document) -> None:
        """The document's process runs, in a guest that is bound to it."""
        self.bound(document.data).expect(READY)
        self.send(RUN, 1, run_entry(flags=0))
        self.expect(STARTED)

    def until(self, text: bytes) -> Result:
        """What process 1 has done once its output ends with `text`; BuildError when it, or the guest, ends first."""
        result = self.hear(lambda heard: heard[1].out.endswith(text) or heard[1].over)[1]
        if not result.out.endswith(text):
            raise BuildError(f"its process wrote {result.out[-80:]!r} and no {text!r}; {self.machine.said}")
        return result

    def rest(self) -> Result:
        """What process 1 did from here on; its `exited` is None when the guest ended first."""
        return self.hear(lambda heard: heard[1].over)[1]

    def greeted_again(self) -> bytes:
        """The agent's HELLO after a reset; what came from before it is dropped. BuildError when nothing boots."""
        while (frame := self.receive()) is not None:
            if frame[0] == HELLO:
                return frame[2]
        raise BuildError(f"nothing boots a second time: {self.machine.said or 'QEMU ended'}")


def _argv(lab: Lab, target: Target, folder: Path, setup: Setup) -> list[str]:
    host = lab.once(f"host of {target.name}", lambda: Host.of(target, lab.qemu))
    if setup.document is not None:
        cmdline = host.cmdline.replace(_UNBOUND, f"sev_agent.workload={setup.document.sha256}")
        assert cmdline != host.cmdline
        assert host.kernel is not None
        initrd = None if host.initramfs is None else hashlib.sha256(host.initramfs).digest()
        kernel = hashlib.sha256(host.kernel).digest()
        table = hashes_table(kernel_sha256=kernel, initrd_sha256=initrd, cmdline=cmdline)
        host = dataclasses.replace(host, cmdline=cmdline, table=table)
    options = [
        (option[0], setup.replaced[option[0]]) if option[0] in setup.replaced else option for option in host.options
    ]
    words = dataclasses.replace(host, options=tuple(options)).argv(folder)
    if setup.reboots:
        words.remove("-no-reboot")
    disk = () if setup.disk is None else _DISK
    return [*words, *disk, "-qtest", f"unix:{_BUS},server=on,wait=off", *setup.options]
