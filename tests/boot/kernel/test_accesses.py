# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A start asks its host for little: each access to a port or to a device is an exit of an encrypted guest."""

from collections import Counter
from pathlib import Path

import pytest

from tests.bench.power_on import accesses, guest
from tests.bench.power_on.sampler import STEADY
from tools.launcher.config.runtime_config import load_config
from tools.launcher.host import qemu_program

_CLOCKS = ("pit", "pcspk", "acpi-tmr")  # read as often as the time takes, most of it in emulation only


def counted(artifacts: Path, qemu: Path, folder: Path, *extra: str) -> Counter[str]:
    """Accesses by region from power-on to HELLO."""
    config = load_config(artifacts / "runtime.toml")
    staged = guest.stage("guest", config, qemu_program.find_qemu(str(qemu)), folder)
    log = staged.folder / "accesses.log"
    with staged.started("-trace", "memory_region_ops_*", "-D", log.name, "-msg", "timestamp=on", *STEADY, *extra) as it:
        while not it.ready(0.5):
            pass
    with log.open() as lines:
        return Counter(access.region for access in accesses.parse(lines))


@pytest.fixture(scope="module")
def regions(artifacts: Path, qemu: Path, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """Those of the launcher's own machine."""
    return counted(artifacts, qemu, tmp_path_factory.mktemp("accesses"))


def test_the_kernel_looks_at_no_bus_that_is_not_there(regions: Counter[str]) -> None:
    """Without pci=lastbus=0 it asks 255 buses for 32 devices each: 8,160 accesses."""
    assert 0 < regions["pcie-mmcfg-mmio"] < 4000


def test_the_kernel_takes_one_access_for_a_register(regions: Counter[str]) -> None:
    """By ECAM; by ports it would be 1,800 accesses."""
    assert 0 < regions["pci-conf-idx"] + regions["pci-conf-data"] < 600


def test_the_agents_device_has_room_for_its_port_alone(
    regions: Counter[str], artifacts: Path, qemu: Path, tmp_path: Path
) -> None:
    more = counted(artifacts, qemu, tmp_path, "-set", "device.serial0.max_ports=31")
    name = "virtio-pci-common-virtio-serial"
    assert 0 < regions[name] < 200
    assert more[name] > 1000


def test_a_start_makes_few_accesses(regions: Counter[str]) -> None:
    """Of 29,600 before anybody counted."""
    assert 500 < regions.total() - sum(regions[name] for name in _CLOCKS) < 4000


def test_the_firmware_reads_the_directory_of_files_once(regions: Counter[str]) -> None:
    """Each name that it looked for took 60 to 140 accesses (recipes/firmware/patches/0005)."""
    assert 0 < regions["fwcfg.dma"] + regions["fwcfg"] < 200
