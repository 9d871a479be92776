# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guests for the boot tests: the real artifacts under QEMU's emulation, started by the real sev-launch."""

import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_LIMIT = 600  # seconds; a guest that hangs must end the test, however slow the machine is


@dataclass(frozen=True, kw_only=True)
class Guest:
    """sev-launch of an output folder, with QEMU from the pinned tree and a root file system."""

    launcher: Path
    qemu: Path
    rootfs: Path
    options: tuple[str, ...] = field(default=())

    def argv(self, command: Sequence[str], *options: str) -> list[str]:
        """The whole command line of an unprotected, emulated run."""
        # fmt: off
        return [
            os.fspath(self.launcher), "run",
            "--unprotected", "--accel", "tcg",
            "--qemu", os.fspath(self.qemu),
            "--rootfs", os.fspath(self.rootfs),
            *self.options, *options, "--", *command,
        ]
        # fmt: on

    def run(self, command: Sequence[str], *options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Start the guest, run the command in it, return what came out and the exit status."""
        return subprocess.run(
            self.argv(command, *options), input=stdin, capture_output=True, timeout=_LIMIT, check=False
        )

    def sh(self, script: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        """Run a shell script in the guest."""
        return self.run(["sh", "-c", script], *options)


@pytest.fixture(scope="session")
def root_folder(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container root: busybox, links for its applets, one data file."""
    root = tmp_path_factory.mktemp("root") / "busybox"
    (root / "bin").mkdir(parents=True)
    for name in ("dev", "proc", "sys", "tmp", "etc"):
        (root / name).mkdir()
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/motd").write_text("from the container's root\n")
    return root


@pytest.fixture(scope="session")
def root_tar(root_folder: Path) -> Path:
    """The same as a plain tar."""
    path = root_folder.parent / "busybox.tar"
    with tarfile.open(path, "w") as archive:
        for member in sorted(root_folder.rglob("*")):
            archive.add(member, member.relative_to(root_folder), recursive=False)
    return path


@pytest.fixture(scope="session")
def root_erofs(root_folder: Path, host_tool: Callable[[str], Path]) -> Path:
    """The same as an EROFS image."""
    path = root_folder.parent / "busybox.erofs"
    subprocess.run([host_tool("mkfs.erofs"), "-T0", "--all-root", path, root_folder], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def guest(artifacts: Path, qemu: Path, root_tar: Path) -> Guest:
    """The production guest on the tar root."""
    return Guest(launcher=artifacts / "sev-launch", qemu=qemu, rootfs=root_tar)


@pytest.fixture(scope="session")
def debug_guest(debug_artifacts: Path, qemu: Path, root_tar: Path) -> Guest:
    """The debug guest on the tar root."""
    return Guest(launcher=debug_artifacts / "sev-launch", qemu=qemu, rootfs=root_tar)
