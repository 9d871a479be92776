# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The drop-ins for Kata Containers: keys that Kata knows, values of the recipes, errors in the template."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tools.pipeline.publish.kata import Variant

from tests.pipeline import sample
from tools.pipeline.base.errors import UserError
from tools.pipeline.publish import kata
from tools.pipeline.recipes.load import Recipes

# Keys of [hypervisor.qemu] that Kata documents; those that it does not know it ignores. The names in
# kata-containers/kata-containers, src/runtime-rs/config/configuration-qemu-snp-runtime-rs.toml.in, commit
# 02a27a916c32e011d3a92c38ad3201931186dd48 (Rust runtime), and `initrd` from
# docs/how-to/how-to-run-kata-containers-with-SNP-VMs.md, commit 012bf4b333215e9955f20bf0bb494085212c2a65 …
_RUST_KEYS = """
    path kernel image initrd machine_type confidential_guest sev_snp_guest snp_id_block snp_id_auth
    snp_guest_policy rootfs_type vm_rootfs_driver rootless enable_annotations valid_hypervisor_paths
    kernel_params kernel_verity_params firmware firmware_volume machine_accelerators seccomp_sandbox
    cpu_features default_vcpus default_maxvcpus default_bridges default_memory memory_slots
    default_maxmemory memory_offset enable_virtio_mem disable_block_device_use shared_fs virtio_fs_daemon
    valid_virtio_fs_daemon_paths virtio_fs_cache_size virtio_fs_queue_size virtio_fs_extra_args
    virtio_fs_cache block_device_driver block_device_aio block_device_cache_set block_device_cache_direct
    block_device_cache_noflush block_device_logical_sector_size block_device_physical_sector_size
    enable_iothreads indep_iothreads enable_mem_prealloc reclaim_guest_freed_memory enable_hugepages
    enable_vhost_user_store vhost_user_store_path enable_iommu enable_iommu_platform
    valid_vhost_user_store_paths pflashes enable_debug disable_nesting_checks disable_image_nvdimm
    pcie_root_port disable_vhost_net extra_monitor_socket entropy_source valid_entropy_sources
    guest_hook_path rx_rate_limiter_max_rate tx_rate_limiter_max_rate network_queues
    guest_memory_dump_path guest_memory_dump_paging enable_guest_swap disable_selinux
    disable_guest_selinux
"""
# … and, where it differs, src/runtime/config/configuration-qemu-snp.toml.in, commit
# 0264aa507df469f638049378d7ab65c24cba632d (Go runtime).
_RUST_ONLY = {"vm_rootfs_driver", "seccomp_sandbox", "extra_monitor_socket", "network_queues"}
_GO_ONLY = {
    "seccompsandbox", "vhost_user_reconnect_timeout_sec", "enable_numa", "numa_mapping", "msize_9p",
    "use_legacy_serial",
}  # fmt: skip
_RUST = frozenset(_RUST_KEYS.split())
_GO = (_RUST - _RUST_ONLY) | _GO_ONLY


def unknown(document: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """What stands in a drop-in and is no key of Kata's."""
    found = [name for name in document if name != "hypervisor"]
    found += [f"hypervisor.{name}" for name in document.get("hypervisor", {}) if name != "qemu"]
    return found + sorted(set(document.get("hypervisor", {}).get("qemu", {})) - set(keys))


@pytest.fixture(scope="module")
def loaded() -> Recipes:
    """Recipes that differ from the shipped ones."""
    return sample.recipes()


@pytest.fixture(scope="module")
def template(repository: Path) -> str:
    """The repository's template."""
    return (repository / kata.TEMPLATE).read_text()


def render(template: str, loaded: Recipes, variant: Variant = Variant.SNP, **changes: Any) -> str:
    return kata.render(
        template,
        variant=variant,
        profile=loaded.profile(changes.pop("profile", "production")),
        guest=replace(loaded.guest, **changes),
        kernel="vmlinuz",
        firmware="OVMF.fd",
    )


def qemu(text: str) -> dict[str, Any]:
    table = tomllib.loads(text)["hypervisor"]["qemu"]
    assert isinstance(table, dict)
    return table


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("profile", ["production", "debug"])
def test_every_key_is_one_that_kata_documents(template: str, loaded: Recipes, variant: Variant, profile: str) -> None:
    """By both runtimes for SEV-SNP, by the Rust one for plain SEV, which the Go one cannot start."""
    document = tomllib.loads(render(template, loaded, variant, profile=profile))
    assert unknown(document, _RUST) == []
    if variant is Variant.SNP:
        assert unknown(document, _GO) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("snp_guest_policy", "snp_guest_polcy", ["snp_guest_polcy"]),
        ("kernel_params", "kernel-params", ["kernel-params"]),
        ("[hypervisor.qemu]", "[hypervisor.qemu-snp]", ["hypervisor.qemu-snp"]),
        ("[hypervisor.qemu]", "[hypervisors.qemu]", ["hypervisors"]),
    ],
)
def test_a_misspelled_key_is_found(template: str, loaded: Recipes, old: str, new: str, found: list[str]) -> None:
    text = re.sub(rf"(?m)^{re.escape(old)}(?= =|$)", new, render(template, loaded))
    assert unknown(tomllib.loads(text), _RUST & _GO) == found


def test_snp_says_what_the_recipes_say(template: str, loaded: Recipes) -> None:
    got = qemu(render(template, loaded, snp_policy=0x1F_0000, vcpus=3))
    assert got == {
        "kernel": "/opt/sev-artifacts/vmlinuz",
        "initrd": "/opt/sev-artifacts/kata-initrd.img",
        "image": "",
        "firmware": "/opt/sev-artifacts/OVMF.fd",
        "firmware_volume": "",
        "machine_type": "pc-q35-9.1",
        "confidential_guest": True,
        "sev_snp_guest": True,
        "snp_guest_policy": 0x1F_0000,
        "snp_id_block": "",
        "snp_id_auth": "",
        "kernel_params": "panic=-1 quiet",
        "kernel_verity_params": "",
        "default_vcpus": 3,
        "default_maxvcpus": 3,
        "enable_annotations": [],
        "shared_fs": "none",
        "disable_image_nvdimm": True,
    }


def test_plain_sev_asks_for_no_snp(template: str, loaded: Recipes) -> None:
    got = qemu(render(template, loaded, Variant.SEV))
    assert (got["confidential_guest"], got["sev_snp_guest"]) == (True, False)
    assert not [key for key in got if key.startswith("snp_")]


def test_a_policy_that_kata_cannot_be_given_is_said(template: str, loaded: Recipes) -> None:
    same = render(template, loaded, Variant.SEV, sev_policy=kata.QEMU_SEV_POLICY)
    assert "which is also this build's" in same
    assert "AND NOT THIS BUILD'S, 0x9." in render(template, loaded, Variant.SEV, sev_policy=0x9)


@pytest.mark.parametrize("variant", Variant)
def test_the_install_command_of_the_comments_moves_every_path(template: str, loaded: Recipes, variant: Variant) -> None:
    """It names one folder in one sed expression, and the file's own name."""
    text = render(template, loaded, variant)
    command = next(line for line in text.splitlines() if "sed '" in line)
    script = re.search(r"sed 's\|([^|]+)\|DIR\|' kata/(\S+) > CONF/config.d/(\S+)", command)
    assert script is not None
    assert script[2] == script[3] == variant.file
    moved = qemu(text.replace(script[1], "/srv/x"))
    assert [moved[key] for key in ("kernel", "initrd", "firmware")] == [
        "/srv/x/vmlinuz",
        "/srv/x/kata-initrd.img",
        "/srv/x/OVMF.fd",
    ]


def test_what_must_be_added_stands_at_the_top(template: str, loaded: Recipes) -> None:
    for variant in Variant:
        head = render(template, loaded, variant).partition("[hypervisor.qemu]")[0]
        assert "kata-agent" in head
        assert "the launch digest is none of those published" in head
        assert "Never run with Kata on SEV hardware" in head


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a = 1\nb = {{ nosuch }}\n", "recipes/kata/dropin.toml.j2:2: 'nosuch' is undefined"),
        ("{% for x in %}\n", "recipes/kata/dropin.toml.j2:1: "),
        ("a = {{ kernel }}\n", "recipes/kata/dropin.toml.j2: the template gives no valid TOML: "),
    ],
)
def test_template_errors_are_one_line(template: str, line: str, loaded: Recipes) -> None:
    with pytest.raises(UserError) as info:
        render(template, loaded)
    assert str(info.value).startswith(line)
    assert len(str(info.value).splitlines()) == 1
