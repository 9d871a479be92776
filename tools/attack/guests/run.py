# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guests that the real sev-launch starts: an owner's, on a host that may have put another QEMU into its way."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.base import children

_LIMIT = 600  # seconds; a guest that hangs must end the attempt, however slow the machine is
_GRACE = 5.0  # seconds to end by itself after an interrupt


@dataclass(frozen=True, kw_only=True)
class Guest:
    """sev-launch of an output folder, with a root file system; `qemu` None: the one that lies beside it."""

    launcher: Path
    qemu: Path | None
    rootfs: Path
    options: tuple[str, ...] = field(default=())

    def argv(self, command: Sequence[str], *options: str) -> list[str]:
        """The whole command line of an unprotected, emulated run."""
        # fmt: off
        return [
            os.fspath(self.launcher), "run",
            "--unprotected", "--accel", "tcg",
            *(() if self.qemu is None else ("--qemu", os.fspath(self.qemu))),
            "--rootfs", os.fspath(self.rootfs),
            *self.options, *options, "--", *command,
        ]
        # fmt: on

    def run(self, command: Sequence[str], *options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Start the guest, run the command in it, return what came out and the exit status."""
        pipe = subprocess.PIPE
        argv = self.argv(command, *options)
        with children.running(argv, grace=_GRACE, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            out, err = process.communicate(stdin, timeout=_LIMIT)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def sh(self, script: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        """Run a shell script in the guest."""
        return self.run(["sh", "-c", script], *options)
