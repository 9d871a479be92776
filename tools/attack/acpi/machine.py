# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest whose host makes up the ACPI tables, and which is looked at from outside.

Its memory is a file, so whether a payload has changed a byte of it is read there, whatever the guest says. AML speaks
through an I/O port (isa-debugcon): that shows that it ran, and how far. The kernel finds no root and panics, which
ends QEMU: all the AML of the tables has run by then, and nothing else in the guest is needed.
"""

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base.errors import BuildError
from tools.sev.footer import parse_footer
from tools.sev.hashes_table import hashes_table

PORT = 0x505
"""Where AML writes what it has done."""

MEMORY = 512 << 20
"""Bytes of memory, all below the hole for devices: an address is an offset in the file."""

MARKER = "sev_test.marker=ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Stands on every guest's command line; the kernel keeps it in memory, in several copies."""

_LIMIT = 1800.0  # seconds until a guest that neither ends nor shows what is waited for is given up
_PERIOD = 0.1
# Without a root the kernel panics, and panic=-1 resets at once. nokaslr: the same physical addresses at each start.
# no_timer_check: on a busy machine the emulated timer is late, which the kernel would take for a broken one.
_CMDLINE = f"console=ttyS0 loglevel=7 panic=-1 nokaslr no_timer_check {MARKER}"
# Linux 7 has words of its own for two kinds (seen in 7.1's log); ours are those before it.
_BEFORE = {"System RAM": "usable", "device reserved": "reserved"}
_E820 = re.compile(r"BIOS-e820: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] (.+)")


@dataclass(frozen=True, kw_only=True)
class Area:
    """A line of the memory map as the kernel got it."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a guest left behind: its memory, its log (where it has a serial console), what AML said."""

    memory: Path
    log: str
    said: str

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the guest's memory."""
        with self.memory.open("rb") as file:
            return os.pread(file.fileno(), size, address)

    def find(self, text: bytes) -> list[int]:
        """Every address at which the memory holds `text`."""
        data = self.memory.read_bytes()
        return [match.start() for match in re.finditer(re.escape(text), data)]

    def areas(self, *kinds: str) -> list[Area]:
        """The memory map; these kinds of it."""
        lines = ((int(a, 16), int(b, 16) + 1, kind.strip()) for a, b, kind in _E820.findall(self.log))
        found = (Area(start=start, end=end, kind=_BEFORE.get(kind, kind)) for start, end, kind in lines)
        return [area for area in found if not kinds or area.kind in kinds]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is the same in every start: QEMU, kernel, firmware (None: SeaBIOS, which measures nothing)."""

    qemu: Path
    kernel: Path
    firmware: Path | None
    cmdline: str = _CMDLINE

    def start(
        self,
        folder: Path,
        *options: str,
        cpus: int = 1,
        memory: Path | None = None,
        until: Callable[[Boot], bool] | None = None,
    ) -> Boot:
        """Start in the new `folder`, wait until QEMU ends or `until` holds; BuildError when neither comes."""
        folder.mkdir(parents=True)
        boot = Boot(memory=memory or folder / "memory", log="", said="")
        argv = self._argv(folder, boot.memory, cpus=cpus, options=options)
        with (folder / "qemu.log").open("wb") as log:
            qemu = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                self._wait(qemu, boot, folder, until)
            finally:
                qemu.kill()
                qemu.wait()
        return self._so_far(boot, folder)

    def _wait(
        self,
        qemu: "subprocess.Popen[bytes]",
        boot: Boot,
        folder: Path,
        until: Callable[[Boot], bool] | None,
    ) -> None:
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            time.sleep(_PERIOD)
            if qemu.poll() is not None:
                if qemu.returncode != 0:
                    words = (folder / "qemu.log").read_text(errors="replace")[-1000:]
                    raise BuildError(f"QEMU ended with status {qemu.returncode}: {words}", where=str(self.kernel))
                return
            if until is not None and boot.memory.exists() and until(self._so_far(boot, folder)):
                return
        found = self._so_far(boot, folder)
        raise BuildError(
            "neither ended nor did what was waited for",
            where=str(self.kernel),
            details=[f"AML said {found.said!r}", *found.log.splitlines()[-20:]],
        )

    def _so_far(self, boot: Boot, folder: Path) -> Boot:
        texts = [(folder / name) for name in ("serial", "said")]
        log, said = (path.read_text(errors="replace") if path.exists() else "" for path in texts)
        return Boot(memory=boot.memory, log=log, said=said)

    def _argv(self, folder: Path, memory: Path, *, cpus: int, options: Sequence[str]) -> list[str]:
        # fmt: off
        argv = [
            os.fspath(self.qemu),
            "-machine", "q35,memory-backend=ram,vmport=off,smm=off",
            "-accel", "tcg",
            "-cpu", "EPYC-v4",
            "-smp", str(cpus),
            "-m", f"{MEMORY >> 20}M",
            "-object", f"memory-backend-file,id=ram,size={MEMORY >> 20}M,mem-path={memory},share=on",
            "-nodefaults", "-nographic", "-no-reboot",
            "-kernel", os.fspath(self.kernel),
            "-append", self.cmdline,
            "-serial", "file:serial",
            "-chardev", "file,id=said,path=said",
            "-device", f"isa-debugcon,iobase={PORT:#x},chardev=said",
            *options,
        ]
        # fmt: on
        if self.firmware is not None:
            image = self.firmware.read_bytes()
            kernel = hashlib.sha256(self.kernel.read_bytes()).digest()
            table = hashes_table(kernel_sha256=kernel, initrd_sha256=None, cmdline=self.cmdline)
            (folder / "hashes").write_bytes(table)
            base = parse_footer(image, where=str(self.firmware)).hashes.base
            argv += ["-bios", os.fspath(self.firmware)]
            argv += ["-device", f"loader,file=hashes,addr={base:#x},force-raw=on"]
        return argv
