# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From power-on to the first word of the guest's user space, emulated: our artifacts beside Debian's.

Then what hardware would pay for in that time: accesses, intercepted instructions, pages, bytes.
"""

import dataclasses
import shutil
import statistics
from pathlib import Path

from tests.bench import debian, report
from tests.bench.power_on import accesses, intercepted, paid, programs
from tests.bench.power_on.guest import boot_qemu, own_config, stage
from tests.bench.report import Part, Row, say, seconds, spread
from tools.launcher.config.runtime_config import Artifact, RuntimeConfig
from tools.launcher.host import qemu_program
from tools.pipeline.base import files
from tools.pipeline.guest import initramfs
from tools.pipeline.tasks.project import Project

_SHARE = 0.1  # of Debian's time; the goal


def measure(project: Project, *, runs: int) -> Part:
    """Boot both in turn, `runs` times after one boot each that is not counted."""
    ours = own_config(project)
    folder = report.folder(project) / "boot"
    if folder.exists():
        shutil.rmtree(folder)
    qemu = boot_qemu(project, folder)
    theirs, version = _debian_config(project, ours, folder)
    guests = (
        stage("ours", ours, qemu, folder),
        stage("debian", theirs, qemu, folder, length=len(debian.MARKER), said=lambda m: m == debian.MARKER),
    )
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
        goal=f"at most {_SHARE:.0%}",
        met=mine <= other * _SHARE,
    )
    known = programs.load(project, folder / "programs")
    say("boot: counting accesses, and what hardware intercepts")
    counts = accesses.count(guests[0], known)
    found = intercepted.count(project, guests[0], known)
    data = {
        "accesses": accesses.data(counts),
        "intercepted": intercepted.data(found),
        "ours": spread(times["ours"]),
        "debian": spread(times["debian"]),
        "share": round(mine / other, 4),
        "debian_kernel": {"version": version, "bytes": theirs.kernel.size},
        "debian_initrd_bytes": None if theirs.initramfs is None else theirs.initramfs.size,
        "qemu": qemu_program.version_text(qemu.version),
    }
    archive = project.build / "results" / project.plan.initramfs.name / initramfs.CPIO
    paid_for = paid.rows(ours, known, archive)
    return Part(rows=(row, *accesses.rows(counts), *intercepted.rows(found), *paid_for), data=data)


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
