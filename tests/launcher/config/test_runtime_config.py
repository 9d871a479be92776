# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""runtime.toml: a good one is accepted, each bad one is one line and exit status 2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out, render
from tools.launcher.config.runtime_config import load_config
from tools.sev.modes import Console, Mode, ProfileKind

Call = Callable[..., Answer]
REMOVED = object()


def change(data: dict[str, Any], path: str, value: object) -> None:
    *tables, key = path.split("/")
    for table in tables:
        data = data[table]
    if value is REMOVED:
        del data[key]
    else:
        data[key] = value


def test_a_good_config(out: Out) -> None:
    config = load_config(out.config)
    assert config.profile is ProfileKind.PRODUCTION
    assert config.sev.mode is Mode.SNP
    assert config.sev.snp_policy == 0x30000
    assert config.devices.console is Console.NONE
    assert (config.machine.memory_mib, config.machine.vcpus) == (512, 1)
    assert [a.role for a in config.artifacts] == ["kernel", "initramfs", "firmware"]


def test_an_initramfs_built_into_the_kernel(tmp_path: Path) -> None:
    config = load_config(Out(tmp_path / "builtin", initramfs=False).config)
    assert config.initramfs is None
    assert [a.role for a in config.artifacts] == ["kernel", "firmware"]


# fmt: off
BAD = [
    ("schema", REMOVED, "schema: missing"),
    ("schema", 4, "this sev-launch reads 5"),
    ("schema", 6, "this sev-launch reads 5"),
    ("schema", "1", "must be an integer"),
    ("schema", True, "must be an integer"),
    ("profile", "test", "not one of: production, debug"),
    ("profile", 1, "must be a string"),
    ("version", "", "must not be empty"),
    ("extra", 1, "extra: unknown key"),
    ("machine/extra", 1, "machine.extra: unknown key"),
    ("sev/snp/extra", 1, "sev.snp.extra: unknown key"),
    ("artifacts", REMOVED, "artifacts: missing"),
    ("artifacts/kernel", REMOVED, "artifacts.kernel: missing"),
    ("artifacts/disk", {"file": "x"}, "artifacts.disk: unknown key"),
    ("artifacts/kernel/file", "/etc/passwd", "plain file name"),
    ("artifacts/kernel/file", "../vmlinuz", "plain file name"),
    ("artifacts/kernel/file", "..", "plain file name"),
    ("artifacts/kernel/file", "a/b", "plain file name"),
    ("artifacts/kernel/file", "a,b", "plain file name"),
    ("artifacts/kernel/file", "", "must not be empty"),
    ("artifacts/kernel/file", "OVMF.fd", "same file name"),
    ("artifacts/kernel/sha256", "ab" * 31, "64 lower-case hex digits"),
    ("artifacts/kernel/sha256", "AB" * 32, "64 lower-case hex digits"),
    ("artifacts/kernel/size", 0, "is not in 1…"),
    ("artifacts/kernel/size", -1, "is not in 1…"),
    ("artifacts/kernel/size", 1.5, "must be an integer"),
    ("artifacts/kernel/mode", 1, "artifacts.kernel.mode: unknown key"),
    ("machine", 1, "must be a table"),
    ("machine/type", "pc", "is not a q35 machine type"),
    ("machine/type", "q35,accel=tcg", "is not a q35 machine type"),
    ("machine/cpu", "EPYC-v4,+svm", "is not a QEMU CPU model"),
    ("machine/vcpus", 0, "is not in 1…255"),
    ("machine/vcpus", 256, "is not in 1…255"),
    ("machine/vcpus", True, "must be an integer"),
    ("machine/memory", "512", "no memory size"),
    ("machine/memory", "64M", "outside 128M"),
    ("machine/memory", "99999999G", "outside 128M"),
    ("machine/memory", 512, "must be a string"),
    ("kernel/cmdline", "a\\nb", "printable ASCII"),
    ("kernel/cmdline", "é", "printable ASCII"),
    ("kernel/cmdline", "x" * 2048, "has 2048 bytes"),
    ("kernel/cmdline", REMOVED, "kernel.cmdline: missing"),
    ("sev/mode", "tdx", "not one of: snp, sev-es, sev"),
    ("sev/reduced-phys-bits", 0, "is not in 1…63"),
    ("sev/kernel-hashes", True, "sev.kernel-hashes: unknown key"),
    ("sev/snp/policy", 0x10000, "lacks bit 17"),
    ("sev/snp/policy", 0xB0000, "bit 19 (DEBUG)"),
    ("sev/snp/policy", -1, "is not in 0…"),
    ("sev/snp/policy", "0x30000", "must be an integer"),
    ("sev/sev-es/policy", 1, "lacks bit 2"),
    ("sev/sev-es/policy", 4, "lacks bit 0 (NODBG)"),
    ("sev/sev-es/legacy-vm-type", "auto", "must be true or false"),
    ("sev/sev-es/legacy-vm-type", REMOVED, "sev.sev-es.legacy-vm-type: missing"),
    ("sev/sev/policy", 5, "has bit 2"),
    ("sev/sev/policy", 0, "lacks bit 0 (NODBG)"),
    ("sev/sev/policy", 1 << 32, "is not in 0…"),
    ("devices/agent-port", "org.sev-artifacts.agent.0", "devices.agent-port: unknown key"),
    ("devices/rootfs-serial", "rootfs", "devices.rootfs-serial: unknown key"),
    ("devices/console", "vga", "not one of: none, serial"),
    ("devices/rng", "on", "must be true or false"),
    ("launch-digest", REMOVED, "launch-digest: missing"),
    ("launch-digest/snp", REMOVED, "launch-digest.snp: missing"),
    ("launch-digest/snp", "0" * 64, "96 lower-case hex digits"),
    ("launch-digest/sev-es", "0" * 96, "64 lower-case hex digits"),
    ("launch-digest/sev", "A" * 64, "64 lower-case hex digits"),
    ("launch-digest/sev", 0, "must be a launch digest in 64 lower-case hex digits"),
    ("launch-digest/tdx", "0" * 96, "launch-digest.tdx: unknown key"),
]
# fmt: on


@pytest.mark.parametrize(("path", "value", "words"), BAD, ids=[f"{p}={str(v)[:20]}" for p, v, _ in BAD])
def test_bad_config(out: Out, call: Call, path: str, value: object, words: str) -> None:
    change(out.data, path, value)
    out.write()
    for name in ("show", "run"):
        answer = call(name, "--config", out.config, "--unprotected", *(["--rootfs", "x", "--", "x"] * (name == "run")))
        assert answer.status == 2
        assert words in answer.one_line()
        assert str(out.config) in answer.err
        assert answer.out == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "schema: missing"),
        (b"schema = ", "not TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"schema = 1" + b"0" * 5000, "not TOML: Exceeds the limit"),
        (b"schema = 0x" + b"f" * 5000, "is not in 1…"),
        (b"schema = 1\nschema = 1\n", "not TOML"),
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (8 << 20) + b"#", "larger than 8388608 bytes"),
        (b"schema = 1\n\x1b = 2", "not TOML"),
    ],
)
def test_files_that_are_no_config(out: Out, call: Call, content: bytes, words: str) -> None:
    out.config.write_bytes(content)
    answer = call("show", "--unbound", "--config", out.config)
    assert answer.status == 2
    assert words in answer.one_line()
    assert "\x1b" not in answer.err


def test_missing_config(tmp_path: Path, call: Call) -> None:
    answer = call("show", "--unbound", "--config", tmp_path / "none.toml")
    assert answer.status == 2
    assert "give --config, or build the artifacts" in answer.one_line()
    answer = call("show", "--unbound", "--config", tmp_path)
    assert answer.status == 2
    assert "Is a directory" in answer.one_line()


def test_debug_policies_belong_to_the_debug_profile(out: Out) -> None:
    out.data["profile"] = "debug"
    out.data["sev"]["snp"]["policy"] = 0xB0000
    out.data["sev"]["sev"]["policy"] = 0
    out.write()
    assert load_config(out.config).sev.snp_policy == 0xB0000


def test_rendering_is_what_the_config_reads(out: Out) -> None:
    # The positive control of the table above: rewriting without a change stays accepted.
    out.config.write_text(render(out.data))
    load_config(out.config)


def test_a_misspelt_key_is_named_where_it_is_missed(out: Out, call: Call) -> None:
    out.data["machine"]["memroy"] = out.data["machine"].pop("memory")
    out.write()
    line = call("show", "--unbound", "--config", out.config).one_line()
    assert line.endswith("machine.memory: missing; unknown key memroy, did you mean memory?")
