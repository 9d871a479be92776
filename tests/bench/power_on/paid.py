# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a start on SEV-SNP hardware has to measure, hash and decompress, worked out from the artifacts."""

from pathlib import Path

from tests.bench.power_on.programs import Programs
from tests.bench.report import Row
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.sev.limits import PAGE

_LIMIT = 4_000_000


def rows(config: RuntimeConfig, programs: Programs, archive: Path) -> tuple[Row, ...]:
    """Of the guest of a config; `archive` is its initramfs, unpacked."""
    footer = artifacts.read_firmware(config)
    sections = sum(section.size for section in footer.sections) // PAGE
    pages = config.firmware.size // PAGE
    initramfs = 0 if config.initramfs is None else config.initramfs.size
    hashed = config.kernel.size + initramfs + len(config.cmdline) + 1
    together = config.kernel.size + initramfs + config.firmware.size
    kernel = sum(len(section.data) for section in programs.kernel.sections)
    unpacked = archive.stat().st_size
    return (
        Row(
            what="kernel, initramfs and firmware together",
            measured=f"{together:,} bytes",
            goal=f"≤ {_LIMIT / 1e6:.1f} MB",
            met=together <= _LIMIT,
        ),
        Row(
            what="pages that the secure processor encrypts and measures at a start (SNP, one vCPU)",
            measured=f"{pages + sections + config.machine.vcpus:,}",
            beside=f"{pages} of the firmware, {sections} of its metadata, one a vCPU",
        ),
        Row(
            what="bytes that the firmware hashes",
            measured=f"{hashed:,}",
            beside="kernel, initramfs, command line",
        ),
        Row(
            what="bytes that the kernel comes to, unpacked, and its initramfs",
            measured=f"{kernel + unpacked:,}",
            beside=f"{kernel:,} and {unpacked:,}",
        ),
    )
