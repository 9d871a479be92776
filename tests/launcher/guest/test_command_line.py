# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""The QEMU command line: golden for each mode, read by the real QEMU, `show` and its JSON."""

import dataclasses
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import CMDLINE, UNBOUND, Out
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest import binding
from tools.launcher.guest.command_line import Files, Option, argv, build, shell
from tools.launcher.guest.spec import Accel, Nic, Spec
from tools.launcher.host.qemu_program import QemuProgram
from tools.sev.modes import Mode
from tools.sev.workload.document import Document, HostFolder, Process, Tar

Call = Callable[..., Answer]
QEMU10 = QemuProgram(path="/usr/bin/qemu", version=(10, 0, 13), sandbox=True)
FILES = Files(kernel="vmlinuz", initramfs="initramfs.cpio.zst", firmware="OVMF.fd", rootfs="rootfs.img")
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
VIRTIO = "iommu_platform=on,disable-legacy=on"

BASE: list[Option] = [
    ("/usr/bin/qemu",),
    ("-nodefaults",),
    ("-no-user-config",),
    ("-no-reboot",),
    ("-display", "none"),
    ("-sandbox", SANDBOX),
]
BOOT: list[Option] = [
    ("-kernel", "vmlinuz"),
    ("-initrd", "initramfs.cpio.zst"),
    ("-append", CMDLINE),
]
DEVICES: list[Option] = [
    ("-device", f"virtio-serial-pci,id=serial0,max_ports=2,{VIRTIO}"),
    ("-chardev", "socket,id=agent,path=agent.sock"),
    ("-device", "virtserialport,bus=serial0.0,chardev=agent,name=org.sev-artifacts.agent.0"),
    ("-blockdev", "driver=raw,node-name=rootfs,read-only=on,file.driver=file,file.filename=rootfs.img"),
    ("-device", f"virtio-blk-pci,drive=rootfs,serial=rootfs,{VIRTIO}"),
    ("-object", "rng-random,id=rng0,filename=/dev/urandom"),
    ("-device", f"virtio-rng-pci,rng=rng0,{VIRTIO}"),
]
SEV_OBJECT = "cbitpos=47,reduced-phys-bits=1"
GOLDEN: dict[Mode, list[Option]] = {
    Mode.SNP: [
        ("-machine", "q35,vmport=off,sata=off,smbus=off,confidential-guest-support=snp0,memory-backend=ram1"),
        ("-accel", "kvm"),
        ("-cpu", "EPYC-v4"),
        ("-smp", "1"),
        ("-m", "512M"),
        ("-object", "memory-backend-memfd,id=ram1,size=512M,share=true,prealloc=false"),
        ("-object", f"sev-snp-guest,id=snp0,{SEV_OBJECT},policy=0x30000,kernel-hashes=on"),
        ("-bios", "OVMF.fd"),
    ],
    Mode.SEV_ES: [
        ("-machine", "q35,vmport=off,sata=off,smbus=off,confidential-guest-support=sev0"),
        ("-accel", "kvm"),
        ("-cpu", "EPYC-v4"),
        ("-smp", "1"),
        ("-m", "512M"),
        ("-object", f"sev-guest,id=sev0,{SEV_OBJECT},policy=0x3f,kernel-hashes=on,legacy-vm-type=off"),
        ("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=OVMF.fd"),
    ],
    Mode.SEV: [
        ("-machine", "q35,vmport=off,sata=off,smbus=off,confidential-guest-support=sev0"),
        ("-accel", "kvm"),
        ("-cpu", "EPYC-v4"),
        ("-smp", "1"),
        ("-m", "512M"),
        ("-object", f"sev-guest,id=sev0,{SEV_OBJECT},policy=0x3b,kernel-hashes=on,legacy-vm-type=off"),
        ("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=OVMF.fd"),
    ],
}


def spec(out: Out, *, mode: Mode | None, qemu: QemuProgram = QEMU10) -> Spec:
    config = load_config(out.config)
    return Spec(
        config=config,
        qemu=qemu,
        firmware=artifacts.read_firmware(config),
        protection=mode,
        cbit=None if mode is None else 47,
        cmdline=CMDLINE,
        binding=binding.UNBOUND,
    )


def options(
    out: Out, *, mode: Mode | None, accel: Accel = Accel.KVM, qemu: QemuProgram = QEMU10, files: Files = FILES
) -> list[Option]:
    if mode is None:
        files = dataclasses.replace(files, hashes="hashes.bin")
    return build(spec(out, mode=mode, qemu=qemu), accel=accel, files=files)


@pytest.mark.parametrize("mode", list(Mode))
def test_protected(out: Out, mode: Mode) -> None:
    assert options(out, mode=mode) == BASE + GOLDEN[mode] + BOOT + DEVICES


@pytest.mark.parametrize(("accel", "cpu"), [(Accel.TCG, "max,monitor=off"), (Accel.KVM, "host")])
def test_unprotected(out: Out, accel: Accel, cpu: str) -> None:
    machine: list[Option] = [
        ("-machine", "q35,vmport=off,sata=off,smbus=off"),
        ("-accel", "kvm" if accel is Accel.KVM else "tcg,tb-size=256"),
        ("-cpu", cpu),
        ("-smp", "1"),
        ("-m", "512M"),
        ("-bios", "OVMF.fd"),
    ]
    table: list[Option] = [("-device", "loader,file=hashes.bin,addr=0x810c00,force-raw=on")]
    assert options(out, mode=None, accel=accel) == BASE + machine + BOOT + table + DEVICES


def test_older_qemu_gets_the_kernel_as_a_named_blob(out: Out) -> None:
    old = QemuProgram(path="/usr/bin/qemu", version=(7, 2, 22), sandbox=False)
    words = argv(options(out, mode=None, accel=Accel.TCG, qemu=old))
    assert words[words.index("-fw_cfg") + 1] == "name=etc/boot/kernel,file=vmlinuz"
    assert "-sandbox" not in words
    assert "-fw_cfg" not in argv(options(out, mode=None))


def test_every_virtio_device_is_told_to_use_the_iommu_platform(out: Out) -> None:
    for mode in (None, *Mode):
        devices = [o[1] for o in options(out, mode=mode) if o[0] == "-device" and o[1].startswith("virtio-")]
        assert len(devices) == 3
        assert all(device.endswith(f",{VIRTIO}") for device in devices)


def test_legacy_vm_type_is_pinned_either_way(out: Out) -> None:
    out.data["sev"]["sev-es"]["legacy-vm-type"] = True
    out.write()
    assert any("legacy-vm-type=on" in word for word in argv(options(out, mode=Mode.SEV_ES)))


def test_built_in_initramfs_no_rng_and_commas_in_paths(tmp_path: Path) -> None:
    bare = Out(tmp_path / "bare", initramfs=False)
    bare.data["devices"]["rng"] = False
    bare.write()
    files = Files(kernel="a,b/vmlinuz", initramfs=None, firmware="a,b/OVMF.fd", rootfs="a,b/r")
    for mode in (None, Mode.SEV):
        words = argv(options(bare, mode=mode, files=files))
        assert "-initrd" not in words
        assert not any("rng" in word for word in words)
        assert any(word.endswith("file.filename=a,,b/r") for word in words)
        assert words[words.index("-kernel") + 1] == "a,b/vmlinuz"


FOLDERS = (HostFolder(target="/a", length=1), HostFolder(target="/b", write=True))


def test_interfaces_are_cards_at_inherited_taps(out: Out) -> None:
    """One with the host's kernel at its other end; neither brings a program in a ROM."""
    cards = (Nic(mac=bytes(range(2, 8)), mtu=1400, tap=7), Nic(mac=b"\2" * 6, mtu=9000, tap=8, vhost=9))
    made = build(dataclasses.replace(spec(out, mode=None), network=cards), accel=Accel.TCG, files=FILES)
    at = made.index(DEVICES[-2])
    assert made[at - 4 : at] == [
        ("-netdev", "tap,id=net0,fd=7"),
        ("-device", f"virtio-net-pci,netdev=net0,mac=02:03:04:05:06:07,host_mtu=1400,romfile=,{VIRTIO}"),
        ("-netdev", "tap,id=net1,fd=8,vhost=on,vhostfd=9"),
        ("-device", f"virtio-net-pci,netdev=net1,mac=02:02:02:02:02:02,host_mtu=9000,romfile=,{VIRTIO}"),
    ]
    assert [card.descriptors for card in cards] == [(7,), (8, 9)]
    assert "-netdev" not in argv(build(spec(out, mode=None), accel=Accel.TCG, files=FILES))


def test_folders_are_disks_and_shares_by_their_numbers(out: Out) -> None:
    document = Document(root=Tar(length=512, sha256="ab" * 32), process=Process(argv=("/app",)), folders=FOLDERS)
    bound = dataclasses.replace(spec(out, mode=None), binding=document)
    files = dataclasses.replace(FILES, hashes="hashes.bin", folders=("a,b.tar", "/proc/self/fd/7"))
    expected: list[Option] = [
        ("-blockdev", "driver=raw,node-name=folder0,read-only=on,file.driver=file,file.filename=a,,b.tar"),
        ("-device", f"virtio-blk-pci,drive=folder0,serial=folder0,{VIRTIO}"),
        ("-fsdev", "local,id=folder1,path=/proc/self/fd/7,security_model=none,multidevs=remap"),
        ("-device", f"virtio-9p-pci,fsdev=folder1,mount_tag=folder1,{VIRTIO}"),
    ]
    assert build(bound, accel=Accel.TCG, files=files)[-4:] == expected


def test_show_names_folders_where_they_lie(call: Call, out: Out, tar: Path, tmp_path: Path) -> None:
    document = Document(root=Tar(length=512, sha256="ab" * 32), process=Process(argv=("/app",)), folders=FOLDERS)
    path = tmp_path / "workload.json"
    path.write_bytes(document.data)
    words = ["show", "--unprotected", "--config", out.config, "--workload", path, f"--folder=/a={tar}"]
    done = call(*words, f"--folder=/b={tmp_path}")
    assert done.status == 0, done.err
    assert f"file.filename={tar}" in done.out
    assert f"path={tmp_path}" in done.out
    done = call(*words)
    assert done.status == 2
    assert "has 2 folders of the host's, 1 are given" in done.err


# What QEMU 10 says when everything was understood and only the hardware is missing.
MISSING_HARDWARE = ("/dev/sev", "/dev/kvm", "KVM", "kvm", "SEV", "sev")


@pytest.mark.parametrize("mode", list(Mode))
def test_qemu_reads_all_of_it_up_to_the_missing_device(
    tmp_path: Path, out: Out, call: Call, qemu: Path, tar: Path, mode: Mode
) -> None:
    words = [
        "show",
        "--unbound",
        "--json",
        "--config",
        out.config,
        "--qemu",
        qemu,
        "--mode",
        mode,
        "--cbit",
        "51",
        "--rootfs",
        tar,
    ]
    answer = call(*words)
    assert answer.status == 0, answer.err
    argument = json.loads(answer.out)["argv"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen(1)
        done = run_qemu(argument, tmp_path)
        # Control: the same words with one property misspelt are refused for that, so QEMU does check them.
        spoilt = run_qemu([word.replace("kernel-hashes=on", "kernel-hashs=on") for word in argument], tmp_path)
        without = run_qemu([word.replace("disable-legacy=on", "disable-legacy=maybe") for word in argument], tmp_path)
    assert done.returncode not in (0, None)
    assert any(word in done.stderr for word in MISSING_HARDWARE), done.stderr
    for complaint in (
        "not found",
        "Invalid parameter",
        "invalid option",
        "expects",
        "not a valid",
        "Failed to connect",
    ):
        assert complaint not in done.stderr
    assert "kernel-hashs" in spoilt.stderr
    assert without.returncode != 0


def run_qemu(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_show_prints_one_option_a_line(out: Out, call: Call, standin: Path) -> None:
    answer = call("show", "--unbound", "--config", out.config, "--qemu", standin, "--cbit", "47")
    lines = answer.out.splitlines()
    assert lines[0] == f"{standin} \\"
    assert all(line.startswith("  -") for line in lines[1:])
    assert f"  -kernel {out.folder}/vmlinuz \\" in lines
    assert f"  -append '{UNBOUND}' \\" in lines
    assert answer.err == ""


def test_show_json(out: Out, call: Call, standin: Path) -> None:
    answer = call(
        "show", "--unbound", "--json", "--unprotected", "--config", out.config, "--qemu", standin, "--accel", "tcg"
    )
    document = json.loads(answer.out)
    assert set(document) == {
        "schema", "profile", "protection", "accel", "qemu", "argv", "options", "kernel_cmdline",
        "hashes_table", "artifacts",
    }  # fmt: skip
    assert document["schema"] == 1
    assert document["protection"] is None
    assert document["accel"] == "tcg"
    assert document["qemu"] == {"path": str(standin), "version": [10, 0, 13]}
    assert [word for option in document["options"] for word in option] == document["argv"]
    assert document["kernel_cmdline"] == UNBOUND
    assert len(bytes.fromhex(document["hashes_table"])) == 176
    assert document["artifacts"] == {
        role: {"file": a["file"], "sha256": a["sha256"], "size": a["size"]} for role, a in out.data["artifacts"].items()
    }


def test_show_needs_a_c_bit(out: Out, call: Call, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.memory_encryption", lambda: None)
    answer = call("show", "--unbound", "--config", out.config, "--qemu", standin)
    assert answer.status == 2
    assert "--cbit N" in answer.one_line()


def test_show_without_qemu(out: Out, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tools.launcher.host.qemu_program._QEMU_EXTRA", ())
    answer = call("show", "--unbound", "--config", out.config, "--cbit", "47")
    assert answer.status == 0
    assert "showing what QEMU 10.0 would be given" in answer.one_line()
    assert answer.out.startswith("qemu-system-x86_64 \\\n")


def test_options_that_change_the_digest_say_so(out: Out, call: Call, standin: Path) -> None:
    words = ["show", "--unbound", "--config", out.config, "--qemu", standin, "--cbit", "47"]
    answer = call(*words, "--append", "sev_agent.log=1")
    assert "the launch digest changes" in answer.one_line()
    assert f"-append '{CMDLINE} sev_agent.log=1 sev_agent.unbound'" in answer.out
    for other in (["--memory", "1G"], ["--cpus", "4"], ["--mode", "sev"]):
        assert f"-append '{UNBOUND}' \\" in call(*words, *other).out


def test_shell_quotes() -> None:
    assert shell([("/a b/qemu",), ("-append", "x 'y'")]) == "'/a b/qemu' \\\n  -append 'x '\"'\"'y'\"'\"''"
