# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest whose only program is a load on disk and network (guest/load.c), and what it says of its bounce buffers.

A plain guest under emulation with `swiotlb=force`: all that goes through the DMA API is bounced, as in an encrypted
one. Eight queues carry data: four of the disk, two of each network device. A port like the agent's is beside them.
"""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tools.attack.guests.initramfs import with_file
from tools.pipeline.base.errors import BuildError
from tools.pipeline.sandbox import failure, sandbox

SLOT = 2 << 10
"""Bytes of a slot (IO_TLB_SIZE, include/linux/swiotlb.h)."""
FORCED = "virtio_ring.force_dma_api=1"
"""On the command line: devices go through the DMA API whether they ask for it or not (kernel-patches/NNN/0001)."""

_SOURCES = Path(__file__).parent / "guest"
_LIMIT = 6 * 3600.0  # seconds; the guest itself says when nothing moves any more
_PERIOD = 0.2
_READ = 64 << 10
_SAID = "load: "
_PORT = "port.sock"
# QEMU 10.0 with several processors now and then ends with "iotlb_to_section: Assertion" while the guest's kernel gives
# the devices their addresses, long before the load. Or it goes on, and a write to the local APIC is lost: seen once, as
# a CPU whose ticks ended there, and a first process that waited for RCU for ever, in silence.
_STARTS = 4
_FIRST_WORD = 300.0  # seconds; a start takes ten
_CPUS = 4
_MEMORY = 512  # MiB
_DISK = 256 << 20  # bytes
# no_timer_check: on a busy machine the emulated timer is late, which the kernel would take for a broken one.
_CMDLINE = "console=ttyS0 panic=-1 no_timer_check printk.devkmsg=on"


def program(tree: Path, folder: Path) -> Path:
    """An initramfs with the load for its only file, made by the compiler of `tree` in the new `folder`."""
    build = folder / "build"
    build.mkdir(parents=True)
    names = sorted(path.name for path in _SOURCES.glob("*.c"))
    command = sandbox.Command(
        argv=("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", "/build/init",
              *(f"/inputs/{name}" for name in names)),
        tree=tree,
        mounts=(
            sandbox.Mount(host=_SOURCES, inside="/inputs"),
            sandbox.Mount(host=build, inside="/build", writable=True),
        ),
    )  # fmt: skip
    outcome = sandbox.run(command, title="the load", log=folder / "log", replay=folder / "replay.sh")
    failure.check(outcome, title="the load")
    path = folder / "initramfs.cpio"
    path.write_bytes(with_file(b"", b"init", (build / "init").read_bytes()))
    return path


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the guest found. Slots of the pool: in all, in use without network devices, at rest with all of them, at
    most, without network devices afterwards, and grown; bytes that arrived.

    `wrong`: sectors and words that are not what was written or sent; `failed`: system calls; `full` and `bad`: lines
    of the kernel's log that say that the pool is full, and that something went wrong; `limit`: bytes of the largest
    request; `full_writes`: of the port, that found no room; `kernel` and `processor`: seconds of the processors, for
    the kernel and in all.
    """

    slots: int
    before: int
    rest: int
    most: int
    after: int
    grown: int
    disk: int
    network: int
    port: int
    full_writes: int
    wrong: int
    failed: int
    full: int
    bad: int
    limit: int
    stalled: bool
    seconds: float
    kernel: float
    processor: float
    log: str

    @property
    def leaked(self) -> int:
        """Slots that were not given back."""
        return self.after - self.before

    @property
    def troubles(self) -> list[str]:
        """All that must not be, whatever the pool's size."""
        found = {
            f"{self.wrong} sectors or words are wrong": self.wrong != 0,
            f"{self.failed} system calls failed": self.failed != 0,
            f"{self.bad} lines of the log tell of trouble": self.bad != 0,
            f"{self.leaked} slots were not given back": self.leaked != 0,
            "nothing moved any more": self.stalled,
        }
        return [text for text, holds in found.items() if holds]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is the same in every start."""

    qemu: Path
    kernel: Path
    initramfs: Path

    def run(
        self, folder: Path, wishes: Mapping[str, int], *, pool: int, append: str = "", platform: bool = True,
        held: bool = False,
    ) -> Result:  # fmt: skip
        """Start it in the new `folder`, and return what it says; BuildError when it says nothing.

        `wishes` are those of guest/load.h; `pool` MiB of bounce buffers, 0 for none at all; `platform`: devices offer
        VIRTIO_F_ACCESS_PLATFORM; `held`: a second disk hardly ever answers.
        """
        folder.mkdir(parents=True)
        with (folder / "disk").open("wb") as disk:
            disk.truncate(_DISK)
        swiotlb = f"swiotlb={(pool << 20) // SLOT},force" if pool else "swiotlb=noforce"
        numbers = " ".join(f"load.{name}={value}" for name, value in wishes.items())
        argv = self._argv(f"{_CMDLINE} {swiotlb} {numbers} {append}", platform=platform, held=held)
        for _ in range(_STARTS):
            with (folder / "qemu.log").open("wb") as log, _echo(folder):
                qemu = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                try:
                    _wait(qemu, folder / "serial")
                    lost = qemu.poll() in {None, -signal.SIGABRT}
                finally:
                    qemu.kill()
                    qemu.wait()
            if not lost or _said(folder / "serial"):
                break
        (folder / "disk").unlink()
        return _result(folder)

    def _argv(self, cmdline: str, *, platform: bool, held: bool) -> list[str]:
        virtio = f"disable-legacy=on,iommu_platform={'on' if platform else 'off'}"
        # fmt: off
        argv = [
            os.fspath(self.qemu),
            "-machine", "q35,vmport=off,smm=off",
            "-accel", "tcg",
            "-cpu", "EPYC-v4",
            "-smp", str(_CPUS),
            "-m", f"{_MEMORY}M",
            "-nodefaults", "-nographic", "-no-reboot",
            "-kernel", os.fspath(self.kernel),
            "-initrd", os.fspath(self.initramfs),
            "-append", cmdline,
            "-serial", "file:serial",
            "-drive", "if=none,id=disk,format=raw,file=disk,cache=unsafe",
            "-device", f"virtio-blk-pci,drive=disk,num-queues={_CPUS},{virtio}",
        ]
        argv += ["-chardev", f"socket,id=port,path={_PORT}", "-device", f"virtio-serial-pci,max_ports=2,{virtio}"]
        argv += ["-device", "virtserialport,chardev=port,nr=1"]
        for name in ("eth0", "eth1"):
            argv += ["-netdev", f"hubport,id={name},hubid=0"]
            argv += ["-device", f"virtio-net-pci,netdev={name},romfile=,host_mtu=65535,{virtio}"]
        if held:
            # One byte a second: after SeaBIOS's look at its first sector the next answer takes minutes.
            argv += ["-drive", "if=none,id=held,driver=null-co,size=1048576,throttling.bps-total=1"]
            argv += ["-device", f"virtio-blk-pci,drive=held,{virtio}"]
        # fmt: on
        return argv


@contextmanager
def _echo(folder: Path) -> Iterator[None]:
    """The port's other end, for one guest: what comes goes back."""

    def serve() -> None:
        with suppress(OSError):
            link, _ = listener.accept()
            with link:
                while data := link.recv(_READ):
                    link.sendall(data)

    # The folder by its descriptor: a socket's path has at most 107 bytes (unix(7)).
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            (folder / _PORT).unlink(missing_ok=True)
            listener.bind(f"/proc/self/fd/{descriptor}/{_PORT}")
        finally:
            os.close(descriptor)
        listener.listen(1)
        # When QEMU ends, so does this; when it never came, the program's end must not wait.
        threading.Thread(target=serve, daemon=True).start()
        yield


def _said(serial: Path) -> list[str]:
    text = serial.read_text(errors="replace") if serial.exists() else ""
    return [line.partition(_SAID)[2].strip() for line in text.splitlines() if _SAID in line]


def _wait(qemu: "subprocess.Popen[bytes]", serial: Path) -> None:
    """Until it ends, or has said what there is to say: with a request unanswered QEMU would not end. Or has no word."""
    began = time.monotonic()
    while time.monotonic() < began + _LIMIT and qemu.poll() is None:
        time.sleep(_PERIOD)
        said = _said(serial)
        if any(line.startswith("{") and line.endswith("}") for line in said):
            return
        if not said and time.monotonic() > began + _FIRST_WORD:
            return


def _result(folder: Path) -> Result:
    log = (folder / "serial").read_text(errors="replace") if (folder / "serial").exists() else ""
    said = _said(folder / "serial")
    if not said or not said[-1].startswith("{"):
        details = [*(folder / "qemu.log").read_text(errors="replace").splitlines()[-5:], *log.splitlines()[-25:]]
        raise BuildError("the guest ended without a result", where=str(folder), details=details)
    return Result(**json.loads(said[-1]), log=log)
