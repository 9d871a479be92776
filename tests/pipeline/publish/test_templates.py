# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""runtime.toml and Kata's drop-ins: the steps' program on the steps' inputs, in this process; some in the sandbox."""

import hashlib
import io
import json
import re
import tomllib
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import sample
from tests.pipeline.alone import alone, engine, output
from tools.pipeline.engine.step import CheckoutFile, Literal, Step
from tools.pipeline.publish import render, templates
from tools.pipeline.publish.templates import Variant
from tools.pipeline.recipes.load import Recipes
from tools.pipeline.tasks.project import Project
from tools.sev import policy

REPOSITORY = Path(__file__).resolve().parents[3]
DIGESTS = {"snp": "ab" * 48, "sev-es": "cd" * 32, "sev": "ef" * 32}
FILES = {"kernel": "vmlinuz", "firmware": "OVMF.fd"}

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


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A folder in which a step's program runs on its inputs, with the sample's recipes."""

    folder: Path
    recipes: Recipes

    def runtime(self, template: str | None = None, *, version: str = "1.2", cmdline: str | None = None) -> str:
        profile = self.recipes.profile("production")
        step = templates.runtime(
            profile if cmdline is None else replace(profile, cmdline=cmdline),
            self.recipes.guest,
            name=profile.name,
            files=FILES,
            artifacts={"kernel": Literal(data=b"kernel"), "firmware": Literal(data=b"firmware!")},
            digests=Literal(data=json.dumps({"configured": {"digests": DIGESTS}}).encode()),
            version=version,
        )
        return self.text(step, templates.CONFIG, template)

    def kata(
        self, variant: Variant = Variant.SNP, template: str | None = None, *, profile: str = "production", **guest: Any
    ) -> str:
        step = templates.kata(
            self.recipes.profile(profile), replace(self.recipes.guest, **guest), kernel="vmlinuz", firmware="OVMF.fd"
        )
        return self.text(step, variant.file, template)

    def text(self, step: Step, name: str, template: str | None) -> str:
        status, err = self.run(step, template)
        assert (status, err) == (0, "")
        # Bytes: line ends are part of what is compared.
        return (self.folder / "out" / name).read_bytes().decode()

    def run(self, step: Step, template: str | None) -> tuple[int, str]:
        (self.folder / "out").mkdir(exist_ok=True)
        for path, reference in step.inputs.items():
            target = self.folder / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            match reference:
                case Literal(data=data):
                    target.write_bytes(data)
                case CheckoutFile(path=source):
                    target.write_bytes((REPOSITORY / source).read_bytes())
        if template is not None:
            (self.folder / "inputs/template.j2").write_text(template)
        words = [re.sub(r"(^|=)/", rf"\g<1>{self.folder}/", word) for word in step.argv[2:]]
        err = io.StringIO()
        with redirect_stderr(err):
            status = render.main(words)
        return status, err.getvalue()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path, recipes=sample.recipes())


# ---- runtime.toml


def test_says_what_the_recipes_say(bench: Bench) -> None:
    assert tomllib.loads(bench.runtime()) == {
        "schema": 5,
        "version": "1.2",
        "profile": "production",
        "artifacts": {
            "kernel": {"file": "vmlinuz", "sha256": hashlib.sha256(b"kernel").hexdigest(), "size": 6},
            "firmware": {"file": "OVMF.fd", "sha256": hashlib.sha256(b"firmware!").hexdigest(), "size": 9},
        },
        "machine": {"type": "pc-q35-9.1", "cpu": "EPYC-Milan", "vcpus": 3, "memory": "2G"},
        "kernel": {"cmdline": "panic=-1 quiet sev_agent.profile=production"},
        "sev": {
            "mode": "sev-es",
            "reduced-phys-bits": 5,
            "snp": {"policy": 0x120133},
            "sev-es": {"policy": 7, "legacy-vm-type": True},
            "sev": {"policy": 0x02010001},
        },
        "devices": {"console": "none", "rng": False},
        "launch-digest": DIGESTS,
    }


def test_the_policies_names_stand_above_their_bits(bench: Bench) -> None:
    lines = bench.runtime().splitlines()
    reasons = {str(mode): text for mode, text in bench.recipes.guest.open_because.items()}
    assert set(reasons) == {"sev-es", "sev"}
    for section, bits, layout in (
        ("[sev.snp]", 0x120133, policy.SNP),
        ("[sev.sev-es]", 7, policy.SEV_ES),
        ("[sev.sev]", 0x02010001, policy.SEV),
    ):
        at = lines.index(section)
        end = lines.index(f"policy = {bits:#x}", at)
        first, *rest = lines[at + 1 : end]
        assert first == f"# {policy.spell(bits, layout)}"
        said = [f"# OPEN: {name}: {text}" for name, text in policy.openings(bits, layout)]
        assert rest[: len(said)] == said
        assert rest[len(said) :] == ([f"# because: {because}"] if (because := reasons.get(layout.mode)) else [])


def test_can_be_moved_and_is_commented(bench: Bench) -> None:
    text = bench.runtime()
    assert str(bench.folder) not in text
    assert str(REPOSITORY) not in text
    assert text.count("\n# ") >= 8
    assert text.endswith("\n")


@pytest.mark.parametrize(
    "text",
    [
        'quote " and backslash \\',
        "tab\tnewline\ncarriage\r",
        "\x01\x1f\x7f",
        "…“”ß",
        "beyond the basic plane: \U0001f600",
        '"""',
        "${{ x }} {% y %} # no comment",
        " leading and trailing ",
        "\u2028\u0085",
    ],
)
def test_quoting(bench: Bench, text: str) -> None:
    got = tomllib.loads(bench.runtime(cmdline=text, version=text))
    assert got["kernel"]["cmdline"] == text
    assert got["version"] == text


def test_the_filter_keeps_types(bench: Bench) -> None:
    text = bench.runtime("a = {{ 1 | toml }}\nb = {{ true | toml }}\nc = {{ '1' | toml }}\n")
    assert tomllib.loads(text) == {"a": 1, "b": True, "c": "1"}


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a = 1\nb = {{ nosuch }}\n", ":2: 'nosuch' is undefined"),
        ("a = 1\nb = {{ nosuch | toml }}\n", ":2: 'nosuch' is undefined"),
        ("\n\n{{ guest.vcpu }}", ":3: '"),
        ("a = 1\n\n{% for x in %}\n", ":3: "),
        ("a = 1\n{{ 1 | tmol }}\n", ":2: No filter named 'tmol'"),
        ("{% if true %}", ":1: "),
        ("\n{{ 1 // 0 }}", ":2: "),
        ("\n{{ 1 + 'a' }}", ":2: "),
        ("{% include 'x' %}", ":1: no loader"),
        ("a = {{ guest.cpu }}\n", ": the template gives no valid TOML: "),
        ("a = 1\na = 1\n", ": the template gives no valid TOML: "),
    ],
)
def test_a_mistake_in_a_template_is_one_line_and_status_2(bench: Bench, template: str, line: str) -> None:
    profile, guest = bench.recipes.profile("production"), bench.recipes.guest
    step = templates.runtime(profile, guest, name="x", files={}, artifacts={}, digests=Literal(data=b"{}"), version="1")
    step = replace(step, argv=step.argv[:-1])
    status, err = bench.run(step, template)
    assert status == 2
    assert err.startswith(templates.RUNTIME + line)
    assert len(err.splitlines()) == 1


# ---- the drop-ins


def qemu(text: str) -> dict[str, Any]:
    table = tomllib.loads(text)["hypervisor"]["qemu"]
    assert isinstance(table, dict)
    return table


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("profile", ["production", "debug"])
def test_every_key_is_one_that_kata_documents(bench: Bench, variant: Variant, profile: str) -> None:
    """By both runtimes for SEV-SNP, by the Rust one for plain SEV, which the Go one cannot start."""
    document = tomllib.loads(bench.kata(variant, profile=profile))
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
def test_a_misspelled_key_is_found(bench: Bench, old: str, new: str, found: list[str]) -> None:
    text = re.sub(rf"(?m)^{re.escape(old)}(?= =|$)", new, bench.kata())
    assert unknown(tomllib.loads(text), _RUST & _GO) == found


def test_snp_says_what_the_recipes_say(bench: Bench) -> None:
    assert qemu(bench.kata(snp_policy=0x1F_0000, vcpus=3)) == {
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


def test_plain_sev_asks_for_no_snp(bench: Bench) -> None:
    got = qemu(bench.kata(Variant.SEV))
    assert (got["confidential_guest"], got["sev_snp_guest"]) == (True, False)
    assert not [key for key in got if key.startswith("snp_")]


def test_a_policy_that_kata_cannot_be_given_is_said(bench: Bench) -> None:
    same = bench.kata(Variant.SEV, sev_policy=templates.QEMU_SEV_POLICY)
    assert "which is also this build's" in same
    assert "AND NOT THIS BUILD'S, 0x9." in bench.kata(Variant.SEV, sev_policy=0x9)
    assert "# OPEN: key-sharing: " in same
    assert "# OPEN: send: " in same
    assert "# OPEN: " not in bench.kata(Variant.SNP)


@pytest.mark.parametrize("variant", Variant)
def test_the_install_command_of_the_comments_moves_every_path(bench: Bench, variant: Variant) -> None:
    """It names one folder in one sed expression, and the file's own name."""
    text = bench.kata(variant)
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


def test_what_must_be_added_stands_at_the_top(bench: Bench) -> None:
    for variant in Variant:
        head = bench.kata(variant).partition("[hypervisor.qemu]")[0]
        assert "kata-agent" in head
        assert "the launch digest is none of those published" in head
        assert "Never run with Kata on SEV hardware" in head


# ---- in the sandbox


def test_the_sandbox_gives_what_was_built(project: Project, kata_artifacts: Path, tmp_path: Path) -> None:
    """Run again on what the build has made: the same bytes as in out-kata/."""
    made = project.plan.deliverable(project.recipes.profile("kata"))
    again = engine(project, tmp_path)
    names = [templates.CONFIG, *(f"kata/{variant.file}" for variant in Variant)]
    for name in names:
        wanted = made.outputs[name]
        assert output(again, alone(project, wanted.step), wanted.name) == (kata_artifacts / name).read_bytes()
