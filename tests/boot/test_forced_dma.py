# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The forced-DMA-API patch at work: bounce buffers for a device that did not ask for them.

A plain guest with `swiotlb=force`, so that whatever goes through the DMA API is bounced, and with devices
that do not offer VIRTIO_F_ACCESS_PLATFORM. Only `virtio_ring.force_dma_api=1` differs.
"""

import dataclasses
from pathlib import Path

import pytest

from tools.attack.guests.run import Guest

_COUNTERS = "cat /etc/motd >/dev/null && cd /sys/kernel/debug/swiotlb && echo $(cat io_tlb_nslabs io_tlb_used_hiwater)"


@pytest.fixture(scope="session")
def qemu_without_platform(qemu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """QEMU behind a wrapper that takes iommu_platform=on away from every device."""
    path = tmp_path_factory.mktemp("wrapper") / "qemu-system-x86_64"
    path.write_text(
        "#!/bin/bash\n"
        'args=("${@//,iommu_platform=on/}")\n'
        f'exec {qemu} "${{args[@]}}"\n'
    )  # fmt: skip
    path.chmod(0o755)
    return path


def _hiwater(guest: Guest, *words: str) -> int:
    done = guest.sh(_COUNTERS, "--unbound", "--append", " ".join(["swiotlb=force", *words]))
    assert done.returncode == 0, done.stderr
    slabs, used = (int(word) for word in done.stdout.split())
    assert slabs > 0
    return used


def test_bounced_with_the_parameter_and_not_without(
    debug_guest: Guest, qemu_without_platform: Path, root_erofs: Path
) -> None:
    """The highest number of bounce slots ever in use: above 0 with, 0 without."""
    guest = dataclasses.replace(debug_guest, qemu=qemu_without_platform, rootfs=root_erofs)
    assert _hiwater(guest, "virtio_ring.force_dma_api=1") > 0
    assert _hiwater(guest) == 0


def test_a_device_with_the_feature_is_bounced_anyway(debug_guest: Guest, root_erofs: Path) -> None:
    """The positive control: iommu_platform=on goes through the DMA API in any kernel."""
    assert _hiwater(dataclasses.replace(debug_guest, rootfs=root_erofs)) > 0
