# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""Artifacts are checked before anything starts; firmware footer; hashes table."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import OWN, Answer, Run
from tests.launcher.launcher_kit import CMDLINE, Out, firmware_image
from tools.launcher.base.errors import UserError
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import load_config
from tools.sev.hashes_table import hashes_table

Call = Callable[..., Answer]
FILES = ["vmlinuz", "initramfs.cpio.zst", "OVMF.fd"]


@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_is_refused(out: Out, run: Run, tmp_path: Path, name: str) -> None:
    log = str(tmp_path / "log")
    assert run("true", STANDIN_LOG=log).returncode == 0
    Path(log).unlink()
    path = out.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = run("true", STANDIN_LOG=log)
    assert done.returncode == 2
    assert name.encode() in done.stderr
    assert b"SHA-256 is" in done.stderr
    assert not Path(log).exists(), "QEMU was started"
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run("true", STANDIN_LOG=log).returncode == 0


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["shorter", "longer", "missing", "folder", "fifo"])
def test_damaged_artifacts_are_refused(out: Out, call: Call, standin: Path, tar: Path, name: str, damage: str) -> None:
    path = out.folder / name
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "shorter":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"x")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    words = ["run", "--unprotected", "--accel", "tcg", "--config", out.config, "--qemu", standin, "--qemu-user", OWN]
    answer = call(*words, "--rootfs", tar, "--", "true")
    assert answer.status == 2
    assert name in answer.one_line()


def test_the_copy_is_what_was_checked(out: Out, tmp_path: Path) -> None:
    config = load_config(out.config)
    into = tmp_path / "private"
    into.mkdir()
    copy = artifacts.verify(config, config.kernel, into=into)
    original = (out.folder / "vmlinuz").read_bytes()
    (out.folder / "vmlinuz").write_bytes(b"changed afterwards")
    assert copy.read_bytes() == original
    with pytest.raises(UserError):
        artifacts.verify(config, config.kernel)


def test_unverified_bytes_never_get_the_final_name(out: Out, tmp_path: Path) -> None:
    data = bytearray((out.folder / "vmlinuz").read_bytes())
    data[0] ^= 1
    (out.folder / "vmlinuz").write_bytes(data)
    config = load_config(out.config)
    into = tmp_path / "private"
    into.mkdir()
    with pytest.raises(UserError, match="SHA-256"):
        artifacts.verify(config, config.kernel, into=into)
    assert not (into / "vmlinuz").exists()


def test_hashes_table_against_a_known_vector() -> None:
    # Written out by hand from QEMU's struct SevHashTable: GUIDs as they lie in memory, lengths 168 and 50.
    # The command line's digest is that of "console=ttyS0" with its NUL.
    cmdline = hashlib.sha256(b"console=ttyS0\0").hexdigest()
    wanted = (
        "06d63894224fc94cb479a793d411fd21" + "a800"
        + "d82dd09720bd944caa78e7714d36ab2a" + "3200" + cmdline
        + "31f7ba442f3ad74b9af141e29169781d" + "3200" + "22" * 32
        + "3794e74dd2ab7f42b835d5b172d2045b" + "3200" + "11" * 32
        + "00" * 8
    )  # fmt: skip
    table = hashes_table(kernel_sha256=b"\x11" * 32, initrd_sha256=b"\x22" * 32, cmdline="console=ttyS0")
    assert table.hex() == wanted
    assert len(table) == 176


def test_an_absent_initrd_counts_as_empty() -> None:
    table = hashes_table(kernel_sha256=bytes(32), initrd_sha256=None, cmdline=CMDLINE)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert table[18 + 50 + 18 : 18 + 100].hex() == empty


def test_the_firmwares_footer(out: Out) -> None:
    footer = artifacts.read_firmware(load_config(out.config))
    assert (footer.hashes.base, footer.hashes.size, footer.sev_es_reset) == (0x810C00, 0x400, 0x80B004)
    assert footer.snp_missing == ()


def test_firmware_without_hashes_area_stops_a_run(tmp_path: Path, call: Call, standin: Path, tar: Path) -> None:
    out = Out(tmp_path / "other", firmware=firmware_image(hashes=None))
    words = ["run", "--unprotected", "--config", out.config, "--qemu", standin, "--qemu-user", OWN, "--rootfs", tar]
    answer = call(*words, "--", "true")
    assert answer.status == 2
    assert "AmdSevX64.dsc" in answer.one_line()
