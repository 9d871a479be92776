# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The repository's own recipes load; each broken one is refused in a line that names file and key."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.recipes import profiles
from tools.pipeline.recipes.profiles import Carry, FirmwareSize, FirmwareTarget, Recipes
from tools.pipeline.sources import pins
from tools.sev.modes import Console, Mode

GUEST = "recipes/guest.toml"
PRODUCTION = "recipes/profiles/production.toml"

Edit = Callable[[str, str, str], None]


def load(root: Path) -> Recipes:
    sources = pins.read_sources_lock(root / pins.SOURCES_LOCK)
    return profiles.load(root, sources=[s.pin.name for s in sources])


def test_the_repositorys_own_recipes(repository: Path) -> None:
    loaded = load(repository)
    production = loaded.profile("production")
    assert production.name == "production"
    assert production.firmware.target is FirmwareTarget.RELEASE
    assert production.firmware.size is FirmwareSize.MIB_1
    assert production.firmware.size.bytes == 1048576
    assert production.firmware.name == "RELEASE-1MB"
    assert production.carry is Carry.BESIDE
    assert production.console is Console.NONE
    assert "sev_agent.profile=production" in production.kernel.cmdline.split()
    guest = loaded.guest
    assert guest.mode is Mode.SNP
    assert (guest.snp_policy, guest.sev_es_policy, guest.sev_policy) == (0x30000, 0x5, 0x1)
    assert guest.kernel_hashes is True
    assert guest.identity.family_id == b"sev-artifacts\0\0\0"
    assert (len(guest.identity.image_id), guest.identity.svn) == (16, 0)
    assert guest.agent_port == "org.sev-artifacts.agent.0"


def test_the_production_profile_has_no_debug_interface(repository: Path) -> None:
    production = load(repository).profile("production")
    assert "debug" not in production.kernel.fragments
    assert not re.search(r"console=ttyS|earlyprintk|sev_agent\.log", production.kernel.cmdline)


def test_recipes_are_frozen(repository: Path) -> None:
    loaded = load(repository)
    with pytest.raises(AttributeError):
        loaded.guest.vcpus = 2  # type: ignore[misc]  # the refusal is tested


def test_the_copy_that_the_refusals_start_from_is_good(copied: Path, repository: Path) -> None:
    assert load(copied) == load(repository)


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        (GUEST, "schema = 1", "schema = 2", "recipes/guest.toml: schema: 2 is not in 1…1"),
        (GUEST, "schema = 1", "", "recipes/guest.toml: schema: missing"),
        (GUEST, 'type = "q35"', 'type = "pc"', "machine.type: 'pc' is not q35"),
        (
            GUEST,
            'cpu = "EPYC-v4"',
            'cpu = "EPYC,foo=on"',
            "machine.cpu: 'EPYC,foo=on' is not a QEMU CPU model",
        ),
        (GUEST, "vcpus = 1", "vcpus = 0", "machine.vcpus: 0 is not in 1…255"),
        (GUEST, "vcpus = 1", "vcpus = 256", "machine.vcpus: 256 is not in 1…255"),
        (GUEST, "vcpus = 1", "vcpus = true", "machine.vcpus: must be an integer, not a boolean"),
        (GUEST, '"512M"', '"512"', 'machine.memory: "512" is no memory size'),
        (GUEST, '"512M"', '"0512M"', 'machine.memory: "0512M" is no memory size'),
        (GUEST, '"512M"', '"64M"', 'machine.memory: "64M" is outside 128M…16384G'),
        (GUEST, '"512M"', '"99999G"', 'machine.memory: "99999G" is outside 128M…16384G'),
        (GUEST, 'mode = "snp"', 'mode = "tdx"', "sev.mode: 'tdx' is not one of: snp, sev-es, sev"),
        (
            GUEST,
            "kernel-hashes = true",
            "kernel-hashes = false",
            "sev.kernel-hashes: must be true; without it",
        ),
        (
            GUEST,
            "[sev.snp.policy]",
            "[sev.snp]\npolicy = 1\n[x]",
            "sev.snp.policy: must be a table, not an int",
        ),
        (
            GUEST,
            'min-abi = "0.0"',
            'min-abi = "0"',
            "sev.snp.policy.min-abi: min-abi is a version from 0.0 to 255.255, not '0'",
        ),
        (GUEST, "smt = true\n", "", "sev.snp.policy.smt: missing; add it (true or false)"),
        (GUEST, "smt = true", "smt = 1", "sev.snp.policy.smt: must be true or false, not an integer"),
        (
            GUEST,
            "send = true",
            "es = true\nsend = true",
            "sev.sev-es.policy.es: unknown key; known here: debug",
        ),
        (
            GUEST,
            "debug = false",
            "debug = true",
            "sev.snp.policy.debug: must be false for production",
        ),
        (
            GUEST,
            "debug = false\nkey-sharing",
            "debug = true\nkey-sharing",
            "sev.sev-es.policy.debug: must be false for production profiles (builtin, production); for one",
        ),
        (GUEST, '"guest"', '"an id of more than sixteen"', "sev.snp.id-block.image-id: 'an id of more than"),
        (GUEST, '"guest"', '""', "sev.snp.id-block.image-id: must not be empty"),
        (GUEST, '"sev-artifacts"', '"é"', "sev.snp.id-block.family-id: 'é' is neither 1 to 16 ASCII"),
        (GUEST, '"sev-artifacts"', "1", "sev.snp.id-block.family-id: must be a string, not an integer"),
        (GUEST, "svn = 0", "svn = -1", "sev.snp.id-block.svn: -1 is not in 0…4294967295"),
        (GUEST, "svn = 0", "svn = 0x1_0000_0000", "sev.snp.id-block.svn: 4294967296 is not in 0…4294967295"),
        (
            GUEST,
            "svn = 0",
            "svn = 0\nversion = 1",
            "sev.snp.id-block.version: unknown key; known here: family-id",
        ),
        (GUEST, "[sev.snp.id-block]", "[sev.snp.idblock]", "sev.snp.id-block: missing; add it (a table)"),
        (GUEST, "legacy-vm-type = false", "", "sev.sev-es.legacy-vm-type: missing"),
        (GUEST, "rng = true", 'rng = "on"', "devices.rng: must be true or false, not a string"),
        (GUEST, '"rootfs"', '"a-serial-that-is-longer-than-virtio-blk-knows"', "devices.rootfs-serial: "),
        (
            GUEST,
            "vcpus = 1",
            "vcpus = 1\nvcpu = 1",
            "recipes/guest.toml: machine.vcpu: unknown key; known here",
        ),
        (GUEST, "[devices]", "[device]", "recipes/guest.toml: devices: missing"),
        (
            PRODUCTION,
            "[kernel]",
            "[kernel]\nx = 1",
            "recipes/profiles/production.toml: kernel.x: unknown key",
        ),
        (
            PRODUCTION,
            'source = "linux"',
            'source = "lniux"',
            "kernel.source: 'lniux' is not pinned; pinned: ",
        ),
        (PRODUCTION, 'source = "linux"', 'source = "../x"', "kernel.source: '../x' is not a name in"),
        (PRODUCTION, 'series = "6.12"', 'series = "6.13"', "kernel.series: no kernel-patches/6.13/series; "),
        (PRODUCTION, 'series = "6.12"', 'series = "../6"', "kernel.series: '../6' is not a kernel series"),
        (PRODUCTION, 'series = "6.12"', f'series = "6.{"1" * 300}"', "is not a kernel series"),
        (
            PRODUCTION,
            '"base"',
            '"bsae"',
            "kernel.fragments[0]: no recipes/kernel/bsae.config; there are: base",
        ),
        (PRODUCTION, '"base"', '"base", "base"', "kernel.fragments[1]: 'base' stands twice"),
        (PRODUCTION, '"base"', '"../profiles/x"', "kernel.fragments[0]: no recipes/kernel/"),
        (PRODUCTION, '"base"', f'"{"x" * 300}"', "kernel.fragments[0]: no recipes/kernel/xxx"),
        (PRODUCTION, "quiet", "quiet\\n", "kernel.cmdline: "),
        (PRODUCTION, "quiet", "q" * 2048, "kernel.cmdline: "),
        (PRODUCTION, '"RELEASE"', '"NOOPT"', "firmware.target: 'NOOPT' is not one of: RELEASE, DEBUG"),
        (PRODUCTION, '"1MB"', '"3MB"', "firmware.size: '3MB' is not one of: 1MB, 2MB, 4MB"),
        (
            PRODUCTION,
            'carry = "beside"',
            'carry = "inside"',
            "initramfs.carry: 'inside' is not one of: beside, builtin",
        ),
        (PRODUCTION, '"none"', '"vga"', "devices.console: 'vga' is not one of: none, serial"),
    ],
)
def test_refuses(  # noqa: PLR0917 (pytest passes by name)
    copied: Path, edit: Edit, file: str, old: str, new: str, where: str
) -> None:
    edit(file, old, new)
    with pytest.raises(UserError) as info:
        load(copied)
    line = str(info.value)
    assert line.startswith(f"{file}: ")
    assert where in line
    assert len(line.splitlines()) == 1
    assert len(line) < 400


def test_refuses_a_missing_default_profile(copied: Path) -> None:
    (copied / PRODUCTION).rename(copied / "recipes/profiles/other.toml")
    with pytest.raises(UserError, match=r"^recipes/profiles/production.toml: no such file; restore it$"):
        load(copied)


def test_refuses_a_profile_whose_name_would_not_do_for_a_folder(copied: Path) -> None:
    (copied / "recipes/profiles/My Profile.toml").write_bytes((copied / PRODUCTION).read_bytes())
    with pytest.raises(UserError, match=r"^recipes/profiles/My Profile.toml: 'My Profile' is no profile name"):
        load(copied)


def test_profiles_come_sorted(copied: Path) -> None:
    text = (copied / PRODUCTION).read_bytes()
    for name in ("zeta", "alpha"):
        (copied / f"recipes/profiles/{name}.toml").write_bytes(text)
    names = [p.name for p in load(copied).profiles]
    assert names == sorted(names)
    assert {"alpha", "production", "zeta"} <= set(names)
