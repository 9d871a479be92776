# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The shipped defaults, in one place: who changes a recipe on purpose changes this test with it, and no other."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tools.pipeline.recipes import load
from tools.pipeline.recipes.firmwares import FirmwareSize, FirmwareTarget
from tools.pipeline.recipes.load import Recipes
from tools.pipeline.recipes.profiles import Carry
from tools.pipeline.sources import wanted
from tools.sev import policy
from tools.sev.modes import Console, Mode, ProfileKind


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Recipes:
    """The checkout's own recipes."""
    sources = wanted.read_sources(repository / wanted.SOURCES_TOML)
    return load.recipes(repository, sources=[s.name for s in sources])


def test_the_guest(shipped: Recipes) -> None:
    guest = shipped.guest
    assert (guest.machine, guest.cpu, guest.vcpus, guest.memory) == ("q35", "EPYC-v4", 1, "512M")
    assert (guest.mode, guest.reduced_phys_bits, guest.rng) == (Mode.SNP, 1, True)
    assert (guest.snp_policy, guest.sev_es_policy, guest.sev_policy) == (0x30000, 0x3F, 0x3B)
    assert guest.open_because == {}
    for mode, bits in ((Mode.SNP, guest.snp_policy), (Mode.SEV_ES, guest.sev_es_policy), (Mode.SEV, guest.sev_policy)):
        assert policy.openings(bits, policy.LAYOUTS[mode]) == []
    assert guest.sev_es_legacy_vm_type is False
    assert guest.identity.family_id == b"sev-artifacts\0\0\0"
    assert (guest.identity.image_id, guest.identity.svn) == (b"guest".ljust(16, b"\0"), 0)


def test_the_profiles(shipped: Recipes) -> None:
    assert {p.name: (p.kind, p.kernel.name, p.firmware.name, p.carry, p.console) for p in shipped.profiles} == {
        "builtin": (ProfileKind.PRODUCTION, "linux-6.12", "ovmf", Carry.BUILTIN, Console.NONE),
        "kata": (ProfileKind.PRODUCTION, "linux-6.12-kata", "ovmf", Carry.BESIDE, Console.NONE),
        "debug": (ProfileKind.DEBUG, "linux-6.12-debug", "ovmf", Carry.BESIDE, Console.SERIAL),
        "production": (ProfileKind.PRODUCTION, "linux-6.12", "ovmf", Carry.BESIDE, Console.NONE),
    }
    cmdlines = {p.name: p.cmdline for p in shipped.profiles}
    assert cmdlines["production"] == "panic=-1 quiet loglevel=1 sev_agent.profile=production"
    assert cmdlines["builtin"] == cmdlines["kata"] == cmdlines["production"]
    assert [p.name for p in shipped.profiles if p.kata] == ["kata"]
    assert {p.name: p.network.name for p in shipped.profiles if p.network} == {"production": "linux-6.12-network"}
    assert cmdlines["debug"] == "panic=-1 console=ttyS0 sev_agent.profile=debug sev_agent.log=1"


SERIES = {"6.18": ["since-6.18", "until-7.1"], "7.1": ["since-6.18", "since-7.1"]}
"""Series beside the default one → their fragments in place of its own."""


def test_kernels_and_firmware(shipped: Recipes) -> None:
    shared = ["base", "sev", "secrets", "virtio", "filesystems", "storage", "container", "hardening", "absent"]
    own = {
        "linux-6.12": ["isolated", "offline", "production"],
        "linux-6.12-debug": ["isolated", "network", "debug"],
        "linux-6.12-network": ["isolated", "network", "production"],
        "linux-6.12-kata": ["network", "vsock", "sharing", "encryption", "production"],
    }
    assert {kernel.name for kernel in shipped.kernels} == set(own)
    for kernel in shipped.kernels:
        names = [*shared, "series-6.12", *own[kernel.name]]
        assert kernel.fragments == tuple(f"recipes/kernel/fragments/{name}.config" for name in names)
        assert (kernel.source, kernel.series) == ("linux", "6.12")
    for series, fragments in SERIES.items():
        others = {kernel.name: kernel for profile in shipped.of_series(series) for kernel in profile.kernels}
        assert set(others) == {name.replace("6.12", series) for name in own}
        for name, kernel in others.items():
            names = [*shared, *own[name.replace(series, "6.12")], *fragments]
            assert kernel.fragments == tuple(f"recipes/kernel/fragments/{name}.config" for name in names)
            assert (kernel.source, kernel.series) == (f"linux-{series}", series)
    (firmware,) = shipped.firmwares
    assert firmware.sources == ("edk2", "edk2-debian")
    assert (firmware.target, firmware.size) == (FirmwareTarget.RELEASE, FirmwareSize.KIB_256)


def test_every_profile_is_there_in_every_series(shipped: Recipes) -> None:
    """And differs in its kernels alone."""
    assert [one.name for one in shipped.series] == list(SERIES)
    names = [one.name for one in shipped.profiles]
    assert shipped.of_series("6.12") == shipped.profiles
    for series in SERIES:
        expected = [series if name == "production" else f"{series}-{name}" for name in names]
        assert [one.name for one in shipped.of_series(series)] == expected
        for own, other in zip(shipped.profiles, shipped.of_series(series), strict=True):
            assert replace(other, name=own.name, kernel=own.kernel, network=own.network) == own
            assert (other.network is None) == (own.network is None)


def test_a_production_profile_has_no_debug_interface(shipped: Recipes) -> None:
    """Whatever else is changed."""
    for profile in shipped.all_profiles:
        if profile.kind is ProfileKind.PRODUCTION:
            for kernel in profile.kernels:
                assert "recipes/kernel/fragments/debug.config" not in kernel.fragments
            assert not re.search(r"console=ttyS|earlyprintk|sev_agent\.log", profile.cmdline)
            assert profile.firmware.target is FirmwareTarget.RELEASE
