# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of pods against lines that were read from Kata's guests, and the digest that follows."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.kata import cmdline
from tools.launcher.kata.cmdline import GO, RELEASES, RUST, Shape
from tools.launcher.measure.launch_digest import LaunchDigests
from tools.launcher.options import kata_options
from tools.sev.hashes_table import hashes_table

Call = Callable[..., Answer]

ARCHITECTURE = (
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 "
    "i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0"
)
SYSTEMD = (
    "systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket"
)
ROOT_HASH = "768cd7e848f6cb7eb4f59467b26ee5c5e45ece570cb96a5c952d97dbc89bb150"
SALT = "63f8dacc786bd19f307be8668c7792a8fe07818df4aae55b63e76c4931d35c76"
UNIFIED = "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"

# What other projects have written down of guests that Kata started; none of it was made with the code under test.
LINES = {
    "3.31, an initramfs, debug (an operator's, for its reference values)": (
        Shape(vmm=GO, release="3.31", debug=True, kernel_params=UNIFIED,
              agent="agent.log=debug agent.launch_process_timeout=6"),
        (f"{ARCHITECTURE} console=hvc0 console=hvc1 debug panic=1 nr_cpus=1 selinux=0 scsi_mod.scan=none "
        f"agent.log=debug agent.launch_process_timeout=6 {UNIFIED}"),
    ),
    "3.31, an ext4 image with verity (a test of somebody's measurements)": (
        Shape(vmm=GO, release="3.31", image="ext4", kernel_params=UNIFIED,
              verity=f"root_hash={ROOT_HASH},salt={SALT},data_blocks=96512,data_block_size=4096,hash_block_size=4096"),
        (f'{ARCHITECTURE} dm-mod.create="dm-verity,,,ro,0 772096 verity 1 /dev/vda1 /dev/vda2 4096 4096 96512 0 sha256 '
        f'{ROOT_HASH} {SALT}" root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4 console=hvc0 '
        f"console=hvc1 quiet systemd.show_status=false panic=1 nr_cpus=1 selinux=0 {SYSTEMD} scsi_mod.scan=none "
        f"agent.launch_process_timeout=6 {UNIFIED}"),
    ),
    "3.5, an EROFS image (a distribution's)": (
        Shape(vmm=GO, release="3.5", image="erofs"),
        (f"{ARCHITECTURE} root=/dev/vda1 rootflags=ro rootfstype=erofs console=hvc0 console=hvc1 quiet "
        f"systemd.show_status=false panic=1 nr_cpus=1 selinux=0 {SYSTEMD} scsi_mod.scan=none"),
    ),
    "the same, debug": (
        Shape(vmm=GO, release="3.5", image="erofs", debug=True, kernel_params="systemd.verity=yes"),
        (f"{ARCHITECTURE} root=/dev/vda1 rootflags=ro rootfstype=erofs console=hvc0 console=hvc1 debug "
        f"systemd.show_status=true systemd.log_level=debug panic=1 nr_cpus=1 selinux=0 {SYSTEMD} scsi_mod.scan=none "
        "systemd.verity=yes"),
    ),
    "kata-rust, 2026 (the same distribution's: its prefix, its own words, its suffix)": (
        Shape(vmm=RUST, release="2026", kernel_params=UNIFIED),
        (f"reboot=k panic=1 {SYSTEMD} agent.cdh_api_timeout=50 agent.launch_process_timeout=6 {UNIFIED} "
        "selinux=0 console=hvc0"),
    ),
    "kata-rust, its sources": (
        Shape(vmm=RUST, release="db04c7ec9397", image="xfs", debug=True, selinux=True, kernel_params="a=b  c"),
        ("reboot=k panic=1 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service "
        "agent.log_vport=1025 root=/dev/vda1 rootflags=data=ordered,errors=remount-ro ro rootfstype=xfs "
        "a=b c selinux=1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_lines_of_real_guests(name: str) -> None:
    shape, line = LINES[name]
    assert cmdline.compose(shape) == line
    # Each field of a shape moves the line, or is refused.
    for change in ({"kernel_params": "x=y"}, {"selinux": not shape.selinux}, {"agent": "agent.x=1"}):
        assert cmdline.compose(replace(shape, **change)) != line


def test_what_is_not_known_is_refused() -> None:
    plain = Shape(vmm=GO, release="3.31")
    assert cmdline.compose(replace(plain, vcpus_max=None, scsi=True, agent="")).endswith("panic=1 selinux=0")
    for wrong, says in (
        ({"release": "9.9"}, "--kata-release '9.9' of kata-go is not known; known: 3.5, 3.31"),
        ({"verity": "root_hash=ab"}, "--root-verity belongs to --root-image"),
        ({"image": "ext4", "verity": "root_hash=ab"}, "must have exactly root_hash, salt"),
        ({"vmm": RUST, "release": "2026", "image": "ext4", "verity": "x"}, "is not known here"),
    ):
        with pytest.raises(UserError, match=r"\w") as caught:
            cmdline.compose(replace(plain, **wrong))  # type: ignore[arg-type]  # fields of several types
        assert says in str(caught.value)
    good = f"root_hash={ROOT_HASH},salt={SALT},data_blocks=1,data_block_size=4096,hash_block_size=4096"
    for old, new in (("=1,", "=x,"), (ROOT_HASH, 'a" b'), (SALT, "")):
        with pytest.raises(UserError, match="--root-verity"):
            cmdline.compose(replace(plain, image="ext4", verity=good.replace(old, new)))


def test_options_know_what_the_line_knows() -> None:
    options = {option.key: option for option in kata_options.KATA.options}
    assert tuple(options["vmm"].choices) == tuple(RELEASES)
    assert tuple(options["root_image"].choices) == cmdline.FILESYSTEMS


# ── the command ──


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    path = tmp_path / "kata-initrd.img"
    path.write_bytes(b"an initramfs with kata-agent")
    return path


def expected(out: Out, line: str, initrd: bytes | None, *, vcpus: int = 1, signature: int = 0x800F12) -> str:
    folder = out.config.parent
    image, kernel = ((folder / name).read_bytes() for name in ("OVMF.fd", "vmlinuz"))
    sha256 = None if initrd is None else hashlib.sha256(initrd).digest()
    table = hashes_table(kernel_sha256=hashlib.sha256(kernel).digest(), initrd_sha256=sha256, cmdline=line)
    own = LaunchDigests(image, table, where="OVMF.fd")
    for number, digest in enumerate(own.snp(signature), start=1):
        if number == vcpus:
            return digest
    raise AssertionError


def test_a_pods_digest(out: Out, call: Call, initrd: Path) -> None:
    words = ("digest", "--config", out.config, "--vmm", "kata-go", "--initrd", initrd)
    answer = call(*words, "--kernel-params", "cgroup_no_v1=all", "--cpus", "3")
    line = cmdline.compose(Shape(vmm=GO, release="3.31", kernel_params="cgroup_no_v1=all", vcpus_max=3))
    digest = expected(out, line, initrd.read_bytes(), vcpus=3)
    assert (answer.status, answer.out) == (0, f"{digest}  snp, kata-go 3.31, CPU signature 0x800f12, 3 vCPUs\n")
    assert line in answer.err
    # The line as it was read from a pod gives the same.
    given = call(*words, "--cmdline", line, "--cpus", "3", "--json")
    assert given.err == ""
    document = json.loads(given.out)
    assert (document["digest"], document["kernel_cmdline"], document["kata_release"]) == (digest, line, None)
    # Another initramfs, another digest.
    initrd.write_bytes(b"another")
    assert digest not in call(*words, "--cmdline", line, "--cpus", "3").out


def test_a_pod_with_an_image(out: Out, call: Call) -> None:
    answer = call("digest", "--config", out.config, "--vmm", "kata-rust", "--root-image", "erofs", "--json")
    line = cmdline.compose(Shape(vmm=RUST, release="2026", image="erofs"))
    document = json.loads(answer.out)
    assert (document["digest"], document["kernel_cmdline"]) == (expected(out, line, None), line)
    assert document["initrd_sha256"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--vmm", "kata-go"], "give either --initrd FILE or --root-image FILESYSTEM"),
        (
            ["--vmm", "kata-go", "--initrd", "INITRD", "--root-image", "ext4"],
            "give either --initrd FILE or --root-image",
        ),
        (["--vmm", "kata-go", "--initrd", "none"], "--initrd none: No such file or directory"),
        (["--vmm", "kata-go", "--initrd", "INITRD", "--mode", "sev"], "--mode sev: kata-go starts no such guest"),
        (["--vmm", "kata-rust", "--initrd", "INITRD", "--mode", "sev-es"], "kata-rust starts no such guest"),
        (["--vmm", "kata-go", "--initrd", "INITRD", "--unbound"], "--unbound is for sev-launch's own guests"),
        (["--vmm", "kata-go", "--initrd", "INITRD", "--kata-release", "9"], "--kata-release '9' of kata-go"),
        (["--vmm", "kata", "--initrd", "INITRD"], "argument --vmm: invalid choice"),
        (["--unbound", "--initrd", "INITRD"], "--initrd belongs to --vmm"),
    ],
)
def test_mistakes(out: Out, call: Call, initrd: Path, words: list[str], says: str) -> None:
    answer = call("digest", "--config", out.config, *(str(initrd) if word == "INITRD" else word for word in words))
    assert (answer.status, answer.out) == (2, "")
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_kernel_that_is_not_the_configs(out: Out, call: Call, initrd: Path) -> None:
    (out.config.parent / "vmlinuz").write_bytes(b"another kernel")
    answer = call("digest", "--config", out.config, "--vmm", "kata-go", "--initrd", initrd)
    assert (answer.status, answer.out) == (2, "")
    assert "vmlinuz" in answer.err
