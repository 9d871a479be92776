# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""qemu-lite's audit: what was asked for is there, what was not is not."""

from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import Step
from tools.pipeline.guest import qemu
from tools.pipeline.tasks.project import Project


def _audit(step: Step, folder: Path, *, without: str = "", more: str = "", size: int = 1 << 20) -> None:
    """Run the step's checks on a program that says so of itself."""
    expected = Path("recipes/qemu/devices.txt").read_text()
    lines = sorted(line for line in qemu.listed(expected) if line != without)
    listed, program = folder / qemu.LISTED, folder / qemu.NAME
    listed.write_text("".join(f"{line}\n" for line in [*lines, *([more] if more else [])]))
    program.write_bytes(b"")
    with program.open("r+b") as stream:
        stream.truncate(size)
    for check in step.checks:
        check({qemu.NAME: program, qemu.LISTED: listed})


def test_the_audit(project: Project, tmp_path: Path) -> None:
    """The very list passes; one line less, one more, or a program that is too large does not."""
    step = project.plan.qemu
    _audit(step, tmp_path)
    with pytest.raises(BuildError, match="lacks object sev-snp-guest"):
        _audit(step, tmp_path, without="object sev-snp-guest")
    with pytest.raises(BuildError, match="nobody asked for it, device e1000e"):
        _audit(step, tmp_path, more="device e1000e")
    _audit(step, tmp_path, size=qemu.SIZE_MAX)
    with pytest.raises(BuildError, match="more than"):
        _audit(step, tmp_path, size=qemu.SIZE_MAX + 1)


def test_the_folder_of_patches() -> None:
    """It is named after the version's first two numbers, whatever Debian adds to it."""
    assert qemu.patch_folder("1:10.2.2+ds-1") == "qemu-patches/10.2"
    assert qemu.patch_folder("11.0.1") == "qemu-patches/11.0"


def test_what_guests_are_given_is_listed(repository: Path) -> None:
    """Each device and back end that the launcher names is one that the program must have."""
    listed = qemu.listed((repository / "recipes/qemu/devices.txt").read_text())
    wanted = {
        "object sev-guest", "object sev-snp-guest", "object memory-backend-memfd", "object rng-random",
        "device virtio-serial-pci", "device virtserialport", "device virtio-blk-pci", "device virtio-rng-pci",
        "device virtio-net-pci", "device virtio-9p-pci", "device isa-serial", "device isa-debugcon", "device loader",
        "chardev socket", "chardev file", "netdev tap", "netdev stream", "accel kvm", "accel tcg", "machine q35",
    }  # fmt: skip
    assert wanted <= listed
