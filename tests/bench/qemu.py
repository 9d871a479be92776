# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""out/qemu-lite beside Debian's QEMU: from its start to a guest's first instruction, and the memory that it takes."""

import shutil
import statistics
import subprocess
import time
from pathlib import Path

from tests.bench import report
from tests.bench.report import Part, Row, say, seconds, spread
from tools.pipeline.base.errors import BuildError
from tools.pipeline.guest import qemu
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

_DOOR = 0xF4
# A reset vector that says so at once: QEMU ends with status 1 + 2 × AL when isa-debug-exit's port is written to.
_SAID, _STATUS = 0x10, 0x21
_FIRMWARE = bytes(65536 - 16) + bytes([0xB0, _SAID, 0xE6, _DOOR, 0xF4]).ljust(16, b"\x90")
# Its reset vector loops.
_IDLE = bytes(65536 - 16) + b"\xeb\xfe".ljust(16, b"\x90")
_MEMORY = 512  # MiB
_LIMIT = 60
_SHARE = 1 / 2


def measure(project: Project, *, runs: int) -> Part:
    """Both in turn, `runs` times after one that is not counted; with the devices of a guest of ours."""
    folder = report.folder(project) / "qemu"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "first.bin").write_bytes(_FIRMWARE)
    (folder / "idle.bin").write_bytes(_IDLE)
    programs = {
        "ours": [str(project.out(project.recipes.profile(DEFAULT_PROFILE)) / qemu.NAME)],
        "debian": _debian(project.trees.ensure("boot").path / "usr"),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    memory: dict[str, list[int]] = {name: [] for name in programs}
    for number in range(runs + 1):
        for name, program in programs.items():
            took, kept = _first(program, folder), _resident(program, folder)
            if number:
                times[name].append(took)
                memory[name].append(kept)
        say(f"qemu {number}/{runs}")
    mine, other = (statistics.median(times[name]) for name in programs)
    small, large = (statistics.median(memory[name]) for name in programs)
    rows = (
        Row(
            what="qemu-lite: start to a guest's first instruction under TCG, beside Debian's QEMU",
            measured=seconds(mine),
            beside=f"{seconds(other)} (ours is {mine / other:.0%})",
            goal="at most half",
            met=mine <= other * _SHARE,
        ),
        Row(
            what="qemu-lite: resident memory without the guest's, beside Debian's QEMU",
            measured=f"{small / 1e6:.1f} MB",
            beside=f"{large / 1e6:.1f} MB (ours is {small / large:.0%})",
            goal="at most half",
            met=small <= large * _SHARE,
        ),
    )
    data = {name: {"first": spread(times[name]), "resident": memory[name]} for name in programs}
    return Part(rows=rows, data=data)


def _debian(usr: Path) -> list[str]:
    """The pinned tree's QEMU by way of its own loader: a sandbox around it would be measured, too."""
    libraries = usr / "lib/x86_64-linux-gnu"
    loader = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)]
    return [
        *loader,
        str(usr / "bin/qemu-system-x86_64"),
        "-L",
        str(usr / "share/qemu"),
        "-L",
        str(usr / "share/seabios"),
    ]


def _argv(program: list[str], firmware: Path) -> list[str]:
    virtio = "iommu_platform=on,disable-legacy=on"
    return [
        *program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "q35,vmport=off,sata=off,smbus=off", "-accel", "tcg", "-cpu", "max", "-m", f"{_MEMORY}M",
        "-bios", str(firmware), "-device", f"isa-debug-exit,iobase={_DOOR:#x},iosize=1",
        "-device", f"virtio-serial-pci,id=serial0,max_ports=2,{virtio}",
        "-object", "rng-random,id=rng0,filename=/dev/urandom",
        "-device", f"virtio-rng-pci,rng=rng0,{virtio}",
    ]  # fmt: skip


def _first(program: list[str], folder: Path) -> float:
    """Seconds from the start of the program to its end, which the guest's first instructions bring about."""
    started = time.perf_counter()
    done = subprocess.run(
        _argv(program, folder / "first.bin"), capture_output=True, text=True, timeout=_LIMIT, check=False
    )
    took = time.perf_counter() - started
    if done.returncode != _STATUS:
        raise BuildError(f"status {done.returncode}: {done.stderr.strip()}", where=program[0])
    return took


def _resident(program: list[str], folder: Path) -> int:
    """Bytes that a QEMU with a guest that does nothing has in memory: its own, and its share of what it maps."""
    with subprocess.Popen(_argv(program, folder / "idle.bin"), stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(2.0)
            return _own(process.pid)
        finally:
            process.kill()


def _own(pid: int) -> int:
    """Resident bytes of every mapping but the guest's memory, which is one of exactly its size."""
    kept, counted = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text("ascii", errors="replace").splitlines():
        words = line.split()
        if words[0] == "Size:":
            counted = int(words[1]) != _MEMORY << 10
        elif words[0] == "Rss:" and counted:
            kept += int(words[1]) << 10
    return kept
