# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes become frozen values; each broken one is refused in a line that names file and key."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline import sample
from tools.pipeline.base.errors import UserError
from tools.pipeline.recipes.firmwares import FirmwareRecipe, FirmwareSize, FirmwareTarget
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.pipeline.recipes.profiles import Carry
from tools.sev.modes import Console, Mode, ProfileKind

GUEST = "recipes/guest.toml"
OPEN_ES = 'open-because = "the sample\'s guests move between machines of one owner"'
OPEN_SEV = 'open-because = "the sample\'s guests are pages of one tenant"'
LISTS = "recipes/kernel/fragments/lists.toml"
KERNEL = "recipes/kernel/a.toml"
FIRMWARE = "recipes/firmware/small.toml"
PRODUCTION = "recipes/profiles/production.toml"

Edit = Callable[[str, str, str], None]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the sample to break."""
    for part in ("recipes", "kernel-patches"):
        shutil.copytree(sample.ROOT / part, tmp_path / part)
    return tmp_path


def test_what_is_written_is_what_is_read() -> None:
    loaded = sample.recipes()
    guest = loaded.guest
    assert (guest.machine, guest.cpu, guest.vcpus, guest.memory) == ("pc-q35-9.1", "EPYC-Milan", 3, "2G")
    assert (guest.mode, guest.reduced_phys_bits, guest.rng) == (Mode.SEV_ES, 5, False)
    assert (guest.snp_policy, guest.sev_es_policy, guest.sev_policy) == (0x120133, 0x7, 0x02010001)
    assert guest.sev_es_legacy_vm_type is True
    assert guest.identity.family_id == b"sample".ljust(16, b"\0")
    assert (guest.identity.image_id, guest.identity.svn) == (bytes(range(16)), 7)
    production = loaded.profile("production")
    assert (production.kind, production.carry, production.console) == (
        ProfileKind.PRODUCTION, Carry.BESIDE, Console.NONE,
    )  # fmt: skip
    assert production.cmdline == "panic=-1 quiet sev_agent.profile=production"
    assert production.firmware == FirmwareRecipe(
        name="small", source="edk2-a", debian_source="edk2-a-debian", patches="recipes/firmware/patches",
        target=FirmwareTarget.DEBUG, size=FirmwareSize.KIB_512,
    )  # fmt: skip
    assert production.firmware.size.bytes == 512 << 10


def test_dropins_for_kata_are_asked_for(copied: Path, edit: Edit) -> None:
    assert not sample.recipes(copied).profile("production").kata
    edit(PRODUCTION, "schema = 2", "schema = 2\nkata = true")
    assert sample.recipes(copied).profile("production").kata


def test_a_second_kernel_is_asked_for(copied: Path, edit: Edit) -> None:
    """And is one that is built, whoever names it."""
    edit("recipes/profiles/debug.toml", 'kernel = "b"', 'kernel = "a"')
    assert sample.recipes(copied).profile("production").network is None
    edit(PRODUCTION, "schema = 2", 'schema = 2\nnetwork = "b"')
    loaded = sample.recipes(copied)
    assert [kernel.name for kernel in loaded.profile("production").kernels] == ["a", "b"]
    assert [kernel.name for kernel in loaded.kernels] == ["a", "b"]


def test_two_profiles_may_use_two_kernel_series() -> None:
    loaded = sample.recipes()
    fragments = tuple(f"recipes/kernel/fragments/{name}.config" for name in ("one", "two", "three"))
    assert loaded.kernels == (
        KernelRecipe(name="a", source="linux-a", series="6.12", fragments=fragments, files=("recipes/kernel/a.toml",)),
        KernelRecipe(name="b", source="linux-b", series="6.18", fragments=fragments, files=("recipes/kernel/b.toml",)),
    )
    assert [loaded.profile(name).kernel.patches for name in ("production", "debug")] == [
        "kernel-patches/6.12", "kernel-patches/6.18",
    ]  # fmt: skip


def add_series(root: Path, name: str, text: str) -> str:
    """Write a recipe of a series; its path."""
    path = root / "recipes/series" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return f"recipes/series/{name}.toml"


def test_a_series_is_a_recipe_and_a_folder_of_patches(copied: Path, edit: Edit) -> None:
    """Every profile whose kernels are of the default series comes once more; nothing of it is written again."""
    (copied / "recipes/kernel/fragments/series-6.12.config").write_text("CONFIG_A=y\n")
    (copied / "recipes/kernel/fragments/since.config").write_text("CONFIG_B=y\n")
    edit(KERNEL, '["three"]', '["three", "series-6.12"]')
    add_series(copied, "6.18", 'schema = 1\nsource = "linux-b"\nfragments = ["since"]\n')
    loaded = sample.recipes(copied)
    # The debug profile has a kernel of 6.18 already.
    assert [profile.name for profile in loaded.profiles] == ["debug", "production"]
    assert [profile.name for profile in loaded.others] == ["6.18"]
    own, other = loaded.profile("production"), loaded.profile("6.18")
    assert (other.file, other.cmdline, other.firmware) == (own.file, own.cmdline, own.firmware)
    assert other.kernel == KernelRecipe(
        name="a-6.18", source="linux-b", series="6.18",
        fragments=tuple(f"recipes/kernel/fragments/{name}.config" for name in ("one", "two", "three", "since")),
        files=(KERNEL, "recipes/series/6.18.toml"),
    )  # fmt: skip
    assert own.kernel.fragments[-1] == "recipes/kernel/fragments/series-6.12.config"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("6.18", 'schema = 1\nsource = "linux-c"\nfragments = []\n', ": source: no source 'linux-c' in recipes/so"),
        ("6.18", 'schema = 1\nsource = "linux-b"\nfragments = ["ten"]\n', ": fragments[0]: no recipes/kernel/frag"),
        ("6.18", 'schema = 1\nsource = "linux-b"\nfragments = []\nx = 1\n', ": x: unknown key"),
        ("6.18", 'schema = 2\nsource = "linux-b"\nfragments = []\n', ": schema: "),
        ("6.12", 'schema = 1\nsource = "linux-b"\nfragments = []\n', ": 6.12 is there already; it is the default"),
        ("6.99", 'schema = 1\nsource = "linux-b"\nfragments = []\n', ": no kernel-patches/6.99/series; create it"),
        ("new", 'schema = 1\nsource = "linux-b"\nfragments = []\n', ": 'new' is no kernel series; name the file as"),
    ],
)
def test_a_broken_series_is_refused(copied: Path, name: str, text: str, says: str) -> None:
    where = add_series(copied, name, text)
    with pytest.raises(UserError) as caught:
        sample.recipes(copied)
    assert str(caught.value).startswith(f"{where}{says}")


def test_a_profile_may_not_have_the_name_of_a_series(copied: Path) -> None:
    add_series(copied, "6.18", 'schema = 1\nsource = "linux-b"\nfragments = []\n')
    assert sample.recipes(copied).profile("6.18").name == "6.18"
    shutil.copy(copied / PRODUCTION, copied / "recipes/profiles/6.18.toml")
    with pytest.raises(UserError, match=r"^recipes/profiles/6\.18\.toml: is a name that a series takes"):
        sample.recipes(copied)


def test_one_source_may_be_patched_by_two_series(copied: Path, edit: Edit) -> None:
    edit("recipes/kernel/b.toml", '"linux-b"', '"linux-a"')
    assert [(k.source, k.series) for k in sample.recipes(copied).kernels] == [("linux-a", "6.12"), ("linux-a", "6.18")]


def test_a_kernel_that_no_profile_names_is_checked_but_not_built(copied: Path, edit: Edit) -> None:
    edit("recipes/profiles/debug.toml", 'kernel = "b"', 'kernel = "a"')
    assert [k.name for k in sample.recipes(copied).kernels] == ["a"]
    edit("recipes/kernel/b.toml", "schema = 1", "schema = 9")
    with pytest.raises(UserError, match=r"^recipes/kernel/b\.toml: schema: "):
        sample.recipes(copied)


def test_what_is_included_comes_first_and_may_be_all(copied: Path, edit: Edit) -> None:
    edit(KERNEL, 'fragments = ["three"]', "fragments = []")
    assert [path[-10:] for path in sample.recipes(copied).kernels[0].fragments] == ["one.config", "two.config"]


def test_recipes_are_frozen() -> None:
    with pytest.raises(AttributeError):
        sample.recipes().guest.vcpus = 2  # type: ignore[misc]  # the refusal is tested


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        (GUEST, "schema = 2", "schema = 1", "schema: 1 is not in 2…2"),
        (GUEST, "schema = 2", "", "schema: missing"),
        (GUEST, '"pc-q35-9.1"', '"pc"', "machine.type: 'pc' is not q35 or pc-q35-10.0"),
        (GUEST, '"EPYC-Milan"', '"EPYC,foo=on"', "machine.cpu: 'EPYC,foo=on' is not a QEMU CPU model"),
        (GUEST, "vcpus = 3", "vcpus = 0", "machine.vcpus: 0 is not in 1…255"),
        (GUEST, "vcpus = 3", "vcpus = 256", "machine.vcpus: 256 is not in 1…255"),
        (GUEST, "vcpus = 3", "vcpus = true", "machine.vcpus: must be an integer, not a boolean"),
        (GUEST, '"2G"', '"512"', 'machine.memory: "512" is no memory size'),
        (GUEST, '"2G"', '"0512M"', 'machine.memory: "0512M" is no memory size'),
        (GUEST, '"2G"', '"64M"', 'machine.memory: "64M" is outside 128M…16384G'),
        (GUEST, '"2G"', '"99999G"', 'machine.memory: "99999G" is outside 128M…16384G'),
        (GUEST, '"sev-es"', '"tdx"', "sev.mode: 'tdx' is not one of: snp, sev-es, sev"),
        (GUEST, "[sev.snp.policy]", "[sev.snp]\npolicy = 1\n[x]", "sev.snp.policy: must be a table, not an int"),
        (GUEST, '"1.51"', '"0"', "sev.snp.policy.min-abi: min-abi is a version from 0.0 to 255.255, not '0'"),
        (GUEST, "smt = false\n", "", "sev.snp.policy.smt: missing; add it (true or false)"),
        (GUEST, "smt = false", "smt = 1", "sev.snp.policy.smt: must be true or false, not an integer"),
        (GUEST, "send = true", "es = true\nsend = true", "sev.sev-es.policy.es: unknown key"),
        (
            GUEST, "debug = false", "debug = true",
            "sev.snp.policy.debug: must be false for production profiles (production); for one guest",
        ),
        (GUEST, "debug = false\nkey-sharing = false", "debug = true\nkey-sharing = false", "sev.sev-es.policy.debug: "),
        (GUEST, "debug = false\nkey-sharing = true", "debug = true\nkey-sharing = true", "sev.sev.policy.debug: must"),
        (GUEST, "migrate = false", "migrate = true", "sev.snp.policy.migrate: a host can read a guest through migr"),
        (GUEST, OPEN_ES, "", "sev.sev-es.policy.send: a host can read a guest through send; say false, or say in "),
        (GUEST, OPEN_SEV, "", "sev.sev.policy.key-sharing: a host can read a guest through key-sharing and send; say "),
        (GUEST, OPEN_ES, 'open-because = ""', "sev.sev-es.open-because: must not be empty"),
        (GUEST, OPEN_ES, 'open-because = "yes"', "sev.sev-es.open-because: 'yes' is not a sentence of 10 to 300"),
        (GUEST, OPEN_ES, 'open-because = "two\\nlines of it"', "sev.sev-es.open-because: 'two\\nlines of it' is not a"),
        (GUEST, OPEN_ES, "open-because = true", "sev.sev-es.open-because: must be a sentence of 10 to 300"),
        (GUEST, "[sev.snp.policy]", '[sev.snp]\nopen-because = "no reason at all"\n[sev.snp.policy]',
         "sev.snp.open-because: the policy leaves nothing open; remove it"),
        (GUEST, '"sample"', '"an id of more than sixteen"', "sev.snp.id-block.family-id: 'an id of more than"),
        (GUEST, '"sample"', '""', "sev.snp.id-block.family-id: must not be empty"),
        (GUEST, '"sample"', '"é"', "sev.snp.id-block.family-id: 'é' is neither 1 to 16 ASCII"),
        (GUEST, '"sample"', "1", "sev.snp.id-block.family-id: must be a string, not an integer"),
        (GUEST, "svn = 7", "svn = -1", "sev.snp.id-block.svn: -1 is not in 0…4294967295"),
        (GUEST, "svn = 7", "svn = 7\nversion = 1", "sev.snp.id-block.version: unknown key"),
        (GUEST, "[sev.snp.id-block]", "[sev.snp.idblock]", "sev.snp.id-block: missing; unknown key idblock, did you"),
        (GUEST, "legacy-vm-type = true", "", "sev.sev-es.legacy-vm-type: missing"),
        (GUEST, "rng = false", 'rng = "on"', "devices.rng: must be true or false, not a string"),
        # What the agent has as constants, and what must never be false, is nobody's choice.
        (GUEST, "rng = false", 'rng = false\nagent-port = "a"', "devices.agent-port: unknown key; known here: rng"),
        (GUEST, "rng = false", 'rng = false\nrootfs-serial = "a"', "devices.rootfs-serial: unknown key"),
        (GUEST, "reduced-phys-bits = 5", "reduced-phys-bits = 5\nkernel-hashes = true", "sev.kernel-hashes: unknown"),
        (GUEST, "[devices]", "[device]", "devices: missing"),
        (LISTS, '"two"', '"too"', "lists.shared[1]: no recipes/kernel/fragments/too.config; did you mean 'two'? there"),
        (LISTS, '"two"', '"../two"', "lists.shared[1]: no recipes/kernel/fragments/../two.config; "),
        (LISTS, "[lists]", "[list]", "lists: missing"),
        (KERNEL, '"linux-a"', '"lniux-a"', "source: no source 'lniux-a' in recipes/sources.toml; did you mean 'linux-"),
        (KERNEL, '"linux-a"', '"../x"', "source: no source '../x' in recipes/sources.toml; there are: edk2-a, "),
        (KERNEL, '"6.12"', '"6.13"', "series: no kernel-patches/6.13/series; create it, or use one of: 6.12, 6.18"),
        (KERNEL, '"6.12"', '"../6"', "series: '../6' is not a kernel series"),
        (KERNEL, '"6.12"', f'"6.{"1" * 300}"', "series: '6.111"),
        (KERNEL, '["shared"]', '["sharde"]', f"include[0]: no list 'sharde' in {LISTS}; did you mean 'shared'?"),
        (KERNEL, '["three"]', '["three", "one"]', "fragments: recipes/kernel/fragments/one.config stands twice"),
        (KERNEL, '["three"]', f'["{"x" * 300}"]', "fragments[0]: no recipes/kernel/fragments/xxx"),
        (KERNEL, '["three"]', "[1]", "fragments[0]: must be a non-empty string, not an integer"),
        (KERNEL, '["shared"]\nfragments = ["three"]', "[]\nfragments = []", "fragments: must not be empty"),
        (KERNEL, "schema = 1", "schema = 1\nseires = 1", "seires: unknown key"),
        (FIRMWARE, '"edk2-a-debian"', '"edk2"', "debian-source: no source 'edk2' in recipes/sources.toml; did you"),
        (FIRMWARE, '"DEBUG"', '"NOOPT"', "target: 'NOOPT' is not one of: RELEASE, DEBUG"),
        (FIRMWARE, '"512KB"', '"2MB"', "size: '2MB' is not one of: 256KB, 512KB"),
        (FIRMWARE, '"patches"', '"patch"', "patches: no recipes/firmware/patch/series"),
        (FIRMWARE, '"patches"', '"../kernel"', "patches: '../kernel' is not the name of a folder"),
        (PRODUCTION, 'kernel = "a"', 'kernel = "aa"', "kernel: no recipes/kernel/aa.toml; did you mean 'a'?"),
        (PRODUCTION, '"small"', '"smal"', "firmware: no recipes/firmware/smal.toml; did you mean 'small'?"),
        (PRODUCTION, "quiet", "quiet\\n", "cmdline: "),
        (PRODUCTION, "quiet", "q" * 2048, "cmdline: "),
        (PRODUCTION, "profile=production", "profile=debug", "cmdline: must hold 'sev_agent.profile=production' once"),
        (PRODUCTION, '"beside"', '"inside"', "carry: 'inside' is not one of: beside, builtin"),
        (PRODUCTION, '"none"', '"vga"', "console: 'vga' is not one of: none, serial"),
        (PRODUCTION, "schema = 2", "schema = 2\nx = 1", "x: unknown key"),
        (PRODUCTION, "schema = 2", "schema = 2\nkata = 1", "kata: must be true or false, not an integer"),
        (PRODUCTION, "schema = 2", 'schema = 2\nnetwork = "c"', "network: no recipes/kernel/c.toml"),
        (PRODUCTION, "schema = 2", 'schema = 2\nnetwork = "a"', "network: 'a' is the profile's kernel already"),
        (PRODUCTION, '"beside"', '"builtin"\nnetwork = "b"', "network: a second kernel takes the initramfs from"),
        (PRODUCTION, '"beside"', '"builtin"\nkata = true', "kata: a kernel that brings an agent of its own is none"),
    ],
)  # fmt: skip
def test_refuses(  # noqa: PLR0917 (pytest passes by name)
    copied: Path, edit: Edit, file: str, old: str, new: str, line: str
) -> None:
    edit(file, old, new)
    with pytest.raises(UserError) as info:
        sample.recipes(copied)
    said = str(info.value)
    assert said.startswith(f"{file}: {line}")
    assert len(said.splitlines()) == 1
    assert len(said) < 400


def test_refuses_a_missing_default_profile(copied: Path) -> None:
    (copied / PRODUCTION).rename(copied / "recipes/profiles/other.toml")
    with pytest.raises(UserError, match=r"^recipes/profiles/production.toml: no such file; restore it$"):
        sample.recipes(copied)


def test_refuses_a_name_that_would_not_do_for_a_folder(copied: Path) -> None:
    (copied / "recipes/profiles/My Profile.toml").write_bytes((copied / PRODUCTION).read_bytes())
    with pytest.raises(UserError, match=r"^recipes/profiles/My Profile.toml: 'My Profile' is no name for a recipe"):
        sample.recipes(copied)


def test_everything_comes_sorted_by_name(copied: Path) -> None:
    # As file names "b-x.toml" comes before "b.toml".
    for folder, name in (("profiles", "production"), ("kernel", "b"), ("firmware", "small")):
        text = (copied / f"recipes/{folder}/{name}.toml").read_text()
        (copied / f"recipes/{folder}/{name}-x.toml").write_text(text)
    edit = copied / "recipes/profiles/production-x.toml"
    edit.write_text(edit.read_text().replace('"a"', '"b-x"').replace('"small"', '"small-x"'))
    loaded = sample.recipes(copied)
    assert [p.name for p in loaded.profiles] == ["debug", "production", "production-x"]
    assert [k.name for k in loaded.kernels] == ["a", "b", "b-x"]
    assert [f.name for f in loaded.firmwares] == ["small", "small-x"]
