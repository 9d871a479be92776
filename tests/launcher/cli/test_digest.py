# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""`sev-launch digest`, and what `sev-launch check` says about launch-digests.json and the summary."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.guest.test_rootfs import erofs_with_verity
from tests.launcher.launcher_kit import CMDLINE, Out, firmware_image
from tools.pipeline.measure import table as launch_digests
from tools.sev.cpu_models import CPU_MODELS

Call = Callable[..., Answer]
ROOT_HASH = "ab" * 32


@pytest.fixture
def file(out: Out) -> dict[str, Any]:
    """launch-digests.json, as the build wrote it."""
    found: dict[str, Any] = json.loads(out.digests.read_text())
    return found


def test_one_line_with_the_digest_that_the_config_says(out: Out, call: Call) -> None:
    answer = call("digest", "--unbound", "--config", out.config)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out == f"{out.data['launch-digest']['snp']}  snp, EPYC-v4 (0x800f12), 1 vCPU\n"


def test_every_mode(out: Out, call: Call, file: dict[str, Any]) -> None:
    answer = call("digest", "--unbound", "--config", out.config, "--mode", "all")
    assert (answer.status, answer.err) == (0, "")
    es = file["modes"]["sev-es"]
    assert answer.out.splitlines() == [
        f"{file['modes']['snp']['digests']['EPYC']['1']}  snp, EPYC-v4 (0x800f12), 1 vCPU",
        f"{es['legacy-vm-type=off']['EPYC']['1']}  sev-es, legacy-vm-type=off, EPYC-v4 (0x800f12), 1 vCPU",
        f"{es['legacy-vm-type=on']['EPYC']['1']}  sev-es, legacy-vm-type=on, EPYC-v4 (0x800f12), 1 vCPU",
        f"{file['modes']['sev']['digest']}  sev",
    ]


@pytest.mark.parametrize("legacy", [False, True])
def test_sev_es_alone_follows_the_config(out: Out, call: Call, file: dict[str, Any], legacy: bool) -> None:
    out.data["sev"]["sev-es"]["legacy-vm-type"] = legacy
    out.write()
    table = file["modes"]["sev-es"][f"legacy-vm-type={'on' if legacy else 'off'}"]
    answer = call("digest", "--unbound", "--config", out.config, "--mode", "sev-es", "--cpus", "5", "--quiet")
    assert answer.out.startswith(f"{table['EPYC']['5']}  sev-es, ")
    assert len(answer.out.splitlines()) == 1


@pytest.mark.parametrize("name", [model.name for model in CPU_MODELS])
def test_other_cpus_and_counts(out: Out, call: Call, file: dict[str, Any], name: str) -> None:
    expected = file["modes"]["snp"]["digests"][name]["64"]
    signature = file["cpu_models"][name]["signature"]
    for words, shown in (
        (["--cpu", name], f"{name} ({signature})"),
        (["--cpu", f"{name}-v1"], f"{name}-v1 ({signature})"),
        (["--cpu-signature", signature], f"CPU signature {signature}"),
    ):
        answer = call("digest", "--unbound", "--config", out.config, "--cpus", "64", *words)
        assert answer.out == f"{expected}  snp, {shown}, 64 vCPUs\n"
        assert "not what runtime.toml says: another number of vCPUs, another CPU" in answer.one_line()


def test_json(out: Out, call: Call) -> None:
    answer = call(
        "digest", "--unbound", "--config", out.config, "--mode", "all", "--json", "--cpu-signature", "0xa00f11"
    )
    document = json.loads(answer.out)
    assert list(document) == [
        "schema", "profile", "artifacts", "kernel_cmdline", "cpu", "cpu_signature", "vcpus", "digests",
    ]  # fmt: skip
    assert document["artifacts"] == out.data["artifacts"]
    assert (document["cpu"], document["cpu_signature"], document["vcpus"]) == (None, "0xa00f11", 1)
    assert [(d["mode"], d["legacy_vm_type"], len(d["digest"])) for d in document["digests"]] == [
        ("snp", None, 96), ("sev-es", False, 64), ("sev-es", True, 64), ("sev", None, 64),
    ]  # fmt: skip


OPTIONS = [
    [],
    ["--append", "sev_agent.log=1"],
    ["--append", " two  spaces "],
    ["--append", "x" * 1900],
    ["--cpus", "7"],
    ["--mode", "sev-es"],
    ["--verity", ROOT_HASH],
    ["--verity", ROOT_HASH, "--append", "quiet"],
]


@pytest.mark.parametrize("words", OPTIONS, ids=lambda words: " ".join(words)[:30])
def test_what_is_digested_is_what_is_launched(
    out: Out, call: Call, standin: Path, tmp_path: Path, words: list[str]
) -> None:
    """The same command line and hashes table, byte for byte; SEV's digest follows from them by hand."""
    rootfs = erofs_with_verity(tmp_path / "app.erofs") if "--verity" in words else None
    both = ["--unbound", "--config", out.config, "--json", *words, *(["--rootfs", rootfs] if rootfs else [])]
    shown = json.loads(call("show", "--qemu", standin, "--cbit", "51", *both).out)
    digested = json.loads(call("digest", *both).out)
    assert digested["kernel_cmdline"] == shown["kernel_cmdline"]
    assert digested["kernel_cmdline"] == shown["argv"][shown["argv"].index("-append") + 1]
    assert digested["artifacts"] == shown["artifacts"]
    assert str(digested["vcpus"]) == shown["argv"][shown["argv"].index("-smp") + 1]
    assert digested["cpu"] == shown["argv"][shown["argv"].index("-cpu") + 1]
    sev = call("digest", *both, "--mode", "sev", "--quiet") if "--mode" not in words else None
    if sev is not None:
        flash = (out.folder / "OVMF.fd").read_bytes()
        by_hand = hashlib.sha256(flash + bytes.fromhex(shown["hashes_table"])).hexdigest()
        assert json.loads(sev.out)["digests"][0]["digest"] == by_hand


def test_options_that_move_the_digest_say_where_the_new_one_is(out: Out, call: Call, standin: Path) -> None:
    words = ["show", "--unbound", "--config", out.config, "--qemu", standin, "--cbit", "51"]
    for option in (["--append", "x"], ["--cpus", "4"], ["--mode", "sev"]):
        line = call(*words, *option).one_line()
        assert "the launch digest" in line
        assert "`sev-launch digest` with the same options prints it" in line
        assert call("digest", "--unbound", "--config", out.config, *option).status == 0
    assert call(*words, "--memory", "4G").err == ""
    assert call(*words).err == ""
    # Plain SEV has no vCPU in its digest.
    assert "--cpus" not in call(*words, "--mode", "sev", "--cpus", "4").one_line()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("machine", "memory"), "16G"),
        (("sev", "snp", "policy"), 0x20000),
        (("sev", "sev-es", "policy"), 0x7),
        (("sev", "sev", "policy"), 0x3),
        (("sev", "reduced-phys-bits"), 5),
        (("devices", "rng"), False),
        (("machine", "type"), "pc-q35-9.1"),
    ],
)
def test_what_does_not_move_any_digest(out: Out, call: Call, key: tuple[str, ...], value: object) -> None:
    words = ["digest", "--unbound", "--config", out.config, "--mode", "all"]
    before = call(*words)
    table = out.data
    for part in key[:-1]:
        table = table[part]
    assert table[key[-1]] != value
    table[key[-1]] = value
    out.write()
    assert call(*words) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--cpu", "host"],
            "CPU model 'host': its CPUID signature is not known, so no launch digest",
        ),
        (["--cpu", "Skylake-Server"], "known: EPYC[-vN], EPYC-Rome[-vN], EPYC-Milan[-vN]"),
        (["--cpu", "host", "--cpu-signature", "0xa00f11"], "not allowed with argument --cpu"),
        (["--cpu-signature", "0x306c3"], "no CPUID signature of a processor with SEV"),
        (["--cpu-signature", "milan"], "no number such as 0xa00f11"),
        (["--cpus", "0"], "no number of CPUs up to 255"),
        (["--cpus", "256"], "no number of CPUs up to 255"),
        (["--cpus", "-1"], "argument --cpus"),
        (["--mode", "tdx"], "invalid choice: 'tdx'"),
        (["--append", "a\nb"], "printable ASCII"),
        (["--append", "x" * 2000], "the kernel takes 2047"),
        (["--append", "sev_agent.profile=debug"], "stands twice"),
        (["--verity", ROOT_HASH], "--verity belongs to --rootfs"),
        (["--verity", ROOT_HASH, "--rootfs", "/nonexistent"], "No such file"),
        (["--memory", "1G"], "--memory belongs to --image"),
        (["--cgroupns", "host"], "of an engine's options changes no digest; leave it out"),
        (["--config", "/nonexistent"], "give --config, or build"),
    ],
)
def test_mistakes(out: Out, call: Call, words: list[str], said: str) -> None:
    answer = call("digest", "--unbound", "--config", out.config, *words)
    assert answer.status == 2
    assert said in answer.one_line()
    assert answer.out == ""


def test_a_command_is_bound_with_its_root(out: Out, call: Call) -> None:
    answer = call("digest", "--config", out.config, "--", "true")
    assert answer.status == 2
    assert "no root file system" in answer.one_line()


def test_a_config_with_the_hosts_cpu_needs_a_signature(out: Out, call: Call) -> None:
    expected = call("digest", "--unbound", "--config", out.config, "--cpu", "EPYC-Milan", "--quiet").out[:96]
    out.data["machine"]["cpu"] = "host"
    out.write()
    for command in ("digest", "check"):
        answer = call(command, "--config", out.config)
        assert answer.status == (1 if command == "check" else 2)
        assert "CPU model 'host'" in answer.one_line()
    answer = call("digest", "--unbound", "--config", out.config, "--cpu-signature", "0xa00f11", "--quiet")
    assert answer.out[:96] == expected
    # Plain SEV measures no CPU.
    assert call("digest", "--unbound", "--config", out.config, "--mode", "sev").status == 0


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs.cpio.zst", "OVMF.fd"])
def test_no_digest_for_artifacts_that_would_not_start(out: Out, call: Call, name: str) -> None:
    data = bytearray((out.folder / name).read_bytes())
    data[100] ^= 1
    (out.folder / name).write_bytes(data)
    answer = call("digest", "--unbound", "--config", out.config)
    assert answer.status == 2
    assert name in answer.one_line()
    assert answer.out == ""


@pytest.mark.parametrize(
    "firmware",
    [
        firmware_image()[4096:],
        firmware_image(hashes=None),
        firmware_image(hashes=(0, 0)),
        firmware_image(sections=(1, 2, 3)),
        firmware_image(es_reset=False),
    ],
)
def test_no_digest_from_unsuitable_firmware(tmp_path: Path, call: Call, firmware: bytes) -> None:
    out = Out(tmp_path / "other", firmware=firmware)
    for words in (["digest", "--unbound"], ["digest", "--unbound", "--mode", "all", "--json"], ["check"]):
        answer = call(*words, "--config", out.config)
        assert answer.status == (1 if words == ["check"] else 2)
        assert "OVMF.fd: " in answer.one_line()
        assert answer.out == ""
    assert call("digest", "--unbound", "--config", Out(tmp_path / "good").config).status == 0


def test_an_edited_config_is_noticed(out: Out, call: Call) -> None:
    out.data["machine"]["vcpus"] = 2
    out.write()
    answer = call("digest", "--unbound", "--config", out.config)
    assert answer.status == 0
    assert "says another digest; was it edited?" in answer.one_line()
    answer = call("check", "--config", out.config)
    assert answer.status == 1
    assert f"{out.config}: launch-digest.snp: says {out.data['launch-digest']['snp']}" in answer.one_line()


@pytest.mark.parametrize("mode", ["snp", "sev-es", "sev"])
def test_check_refuses_another_summary(out: Out, call: Call, mode: str) -> None:
    text = out.data["launch-digest"][mode]
    out.data["launch-digest"][mode] = ("1" if text[0] == "0" else "0") + text[1:]
    out.write()
    answer = call("check", "--config", out.config)
    assert answer.status == 1
    assert f"launch-digest.{mode}: says" in answer.one_line()
    assert text in answer.err


REMOVED = object()
# fmt: off
WRONG = [
    ("schema", 1, "schema: says 1, must be 2"),
    ("schema", True, "schema: says true, must be 2"),
    ("profile", "debug", "profile: says"),
    ("extra", 1, "extra: unknown key"),
    ("computed_with", REMOVED, "computed_with: missing"),
    ("depends_on/vmm", REMOVED, "depends_on.vmm: missing"),
    ("depends_on", REMOVED, "depends_on.vmm: missing"),
    ("depends_on", 1, "depends_on.vmm: missing"),
    ("depends_on/kernel_cmdline", CMDLINE + " ", "depends_on.kernel_cmdline: says"),
    ("depends_on/base_cmdline", CMDLINE + " ", "depends_on.base_cmdline: says"),
    ("depends_on/artifacts/initramfs", None, "depends_on.artifacts.initramfs: says null"),
    ("depends_on/artifacts/kernel/size", 1, "depends_on.artifacts.kernel.size: says 1"),
    ("depends_on/guest_features/snp", "0x21", "guest_features.snp: says"),
    ("configured/vcpus", 2, "configured.vcpus: says 2, must be 1"),
    ("configured/digests/sev", "0" * 64, "configured.digests.sev: says"),
    ("cpu_models/EPYC/signature", "0x0", "cpu_models.EPYC.signature: says"),
    ("cpu_models/EPYC/qemu_models", ["host"], "cpu_models.EPYC.qemu_models: says"),
    ("modes/sev/digest", "0" * 64, "modes.sev.digest: says"),
    ("modes/snp/digests/EPYC-Turin/64", "0" * 96, "modes.snp.digests.EPYC-Turin.64: says"),
    ("modes/snp/digests/EPYC-Turin/64", REMOVED, "modes.snp.digests.EPYC-Turin.64: missing"),
    ("modes/snp/digests/EPYC-Turin/65", "0" * 96, "modes.snp.digests.EPYC-Turin.65: unknown key"),
    ("modes/snp/digests/EPYC-Rome", REMOVED, "modes.snp.digests.EPYC-Rome: missing"),
    ("modes/snp/resumable/before_vmsas", "0" * 96, "modes.snp.resumable.before_vmsas: says"),
    ("modes/snp/resumable/vmsa_pages/EPYC/ap", "0" * 96, "vmsa_pages.EPYC.ap: says"),
    ("modes/sev-es/legacy-vm-type=on/EPYC/3", "0" * 64, "modes.sev-es.legacy-vm-type=on.EPYC.3: says"),
    ("modes/sev-es/legacy-vm-type=off/EPYC-Genoa/1", "0" * 64, "legacy-vm-type=off.EPYC-Genoa.1: says"),
    ("modes", [], "modes: says []"),
]
# fmt: on


@pytest.mark.parametrize(("path", "value", "said"), WRONG, ids=[f"{p}={str(v)[:10]}" for p, v, _ in WRONG])
def test_check_refuses_another_table(
    out: Out, call: Call, file: dict[str, Any], path: str, value: object, said: str
) -> None:
    assert call("check", "--config", out.config).status == 0
    table = copy.deepcopy(file)
    *parents, key = path.split("/")
    inner = table
    for parent in parents:
        inner = inner[parent]
    if value is REMOVED:
        del inner[key]
    else:
        inner[key] = value
    out.digests.write_text(launch_digests.serialise(table))
    answer = call("check", "--config", out.config)
    assert answer.status == 1
    assert f"{out.digests}: " in answer.one_line()
    assert said in answer.err
    assert "rebuild with ./doit build" in answer.err
    assert len(answer.err) < 900


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1' + b" " * (1 << 20) + b"}", b"1" * 5000],
)
def test_check_refuses_files_that_are_no_table(out: Out, call: Call, content: bytes) -> None:
    out.digests.write_bytes(content)
    answer = call("check", "--config", out.config)
    assert answer.status == 1
    said = "is no JSON object" if len(content) <= 1 << 20 else "larger than 1 MiB"
    assert f"launch-digests.json: {said}" in answer.one_line()


def test_check_needs_the_file(out: Out, call: Call) -> None:
    out.digests.unlink()
    answer = call("check", "--config", out.config)
    assert answer.status == 1
    assert "launch-digests.json: No such file or directory" in answer.one_line()
    # The command computes; it does not look anything up.
    assert call("digest", "--unbound", "--config", out.config).status == 0


def test_a_builtin_initramfs(tmp_path: Path, call: Call) -> None:
    out = Out(tmp_path / "builtin", initramfs=False)
    assert call("check", "--config", out.config).status == 0
    assert json.loads(out.digests.read_text())["depends_on"]["artifacts"]["initramfs"] is None
    assert call("digest", "--unbound", "--config", out.config).out.startswith(out.data["launch-digest"]["snp"])
