# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""Options, refusals, doctor, the choice of accelerator, and the launcher as one file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.conftest import OWN, Answer, Run
from tests.launcher.launcher_kit import Out, facts, firmware_image
from tools.launcher.host import facts as host
from tools.launcher.host.facts import obstacles
from tools.launcher.host.qemu_program import ENVIRONMENT
from tools.sev.modes import Mode

Call = Callable[..., Answer]
HASH = "ab" * 32

# fmt: off
MISTAKES = [
    ([], "required: COMMAND"),
    (["fly"], "invalid choice"),
    (["run"], "no command to run"),
    (["run", "--"], "no command to run"),
    (["run", "true"], "unrecognized arguments: true (what runs in the guest stands behind --)"),
    (["run", "--cpus", "1", "sh", "-c", "id"], "unrecognized arguments: sh -c id (what runs in the guest stands"),
    (["run", "--", "true"], "no root file system"),
    (["run", "--rootfs"], "expected one argument"),
    (["run", "--rootfs", "x", "--mode", "tdx", "--", "x"], "invalid choice: 'tdx'"),
    (["run", "--rootfs", "x", "--cpus", "0", "--", "x"], "no whole number from 1 to 255"),
    (["run", "--rootfs", "x", "--cpus", "1e3", "--", "x"], "no whole number"),
    (["run", "--rootfs", "x", "--memory", "1", "--", "x"], "no memory size"),
    (["run", "--rootfs", "x", "--memory", "1M", "--", "x"], "outside 128M"),
    (["run", "--rootfs", "x", "--user", "root", "--", "x"], "no UID"),
    (["run", "--rootfs", "x", "--user", "1:2:3", "--", "x"], "no UID"),
    (["run", "--rootfs", "x", "--user", "4294967295", "--", "x"], "no UID"),
    (["run", "--rootfs", "x", "--workdir", "tmp", "--", "x"], "no absolute path"),
    (["run", "--rootfs", "x", "--hostname", "a_b", "--", "x"], "no host name"),
    (["run", "--rootfs", "x", "--env", "=x", "--", "x"], "has no name"),
    (["run", "--rootfs", "x", "--env", "SURELY_NOT_SET", "--", "x"], "not in the environment"),
    (["run", "--rootfs", "x", "--timeout", "0", "--", "x"], "no number of seconds"),
    (["run", "--rootfs", "x", "--timeout", "nan", "--", "x"], "no number of seconds"),
    (["run", "--rootfs", "x", "--append", "a\nb", "--", "x"], "printable ASCII"),
    (["run", "--rootfs", "x", "--append", "", "--", "x"], "printable ASCII"),
    (["run", "--rootfs", "x", "--accel", "tcg", "--", "x"], "encryption needs KVM"),
    (["run", "--rootfs", "x", "--conf", "x", "--", "x"], "unrecognized arguments"),
    (["check", "--", "x"], "runs no command"),
    (["show", "--", "x"], "no root file system"),
    (["run", "--rootfs", "x", "--workload", "y", "--", "x"], "leave the command out"),
    (["run", "--rootfs", "x", "--workload", "y", "--unbound"], "not allowed with argument"),
    (["run", "--rootfs", "x", "--unbound", "--open", "stdin", "--", "x"], "not allowed with argument"),
    (["run", "--rootfs", "x", "--open", "door", "--", "x"], "invalid choice: 'door'"),
    (["workload"], "no command to run"),
    (["workload", "--unbound", "--", "x"], "leave out"),
    (["workload", "x", "--rootfs", "y"], "give either a document"),
    (["workload", "/no/such/file"], "No such file"),
    (["show", "--cbit", "64"], "no whole number from 1 to 63"),
    (["show", "--verity", HASH], "--verity belongs to --rootfs"),
    (["doctor", "--rootfs", "x"], "unrecognized arguments"),
    (["show", "\x1b[2J"], "unrecognized arguments"),
    (["digets"], "invalid choice: 'digets', did you mean digest?"),
    (["show", "--comfig", "x"], "unrecognized arguments: --comfig, did you mean --config?"),
    (["show", "--mode", "spn"], "invalid choice: 'spn', did you mean snp?"),
    (["show", "--json=x"], "takes no value"),
    (["show", "--unbound", "--qemu", "--json"], "expected one argument"),
    (["--source"], "--source takes one folder"),
]
# fmt: on


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(w)[:40] or "nothing" for w, _ in MISTAKES])
def test_mistakes(call: Call, words: list[str], said: str) -> None:
    answer = call(*words)
    assert answer.status == 2
    assert said in answer.one_line()
    assert "\x1b" not in answer.err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["show", "-h"], ["doctor", "--help"]])
def test_help(call: Call, words: list[str]) -> None:
    answer = call(*words)
    assert answer.status == 0
    assert "sev-launch" in answer.out
    assert answer.err == ""


def test_no_sev_and_no_unprotected_is_refused_with_the_reasons(
    out: Out, call: Call, standin: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", lambda: facts(sev_error="No such file or directory"))
    words = ["run", "--config", out.config, "--qemu", standin, "--rootfs", tar, "--", "true"]
    answer = call(*words)
    assert answer.status == 2
    line, *reasons = answer.err.splitlines()
    assert line.startswith("sev-launch: this host cannot run a guest in mode snp; ")
    assert "--unprotected" in line
    assert reasons == ["  /dev/sev: No such file or directory"]
    assert answer.out == ""
    assert call(*words[:1], "--unprotected", "--accel", "tcg", *words[1:]).status == 0


def test_this_host_without_sev_refuses_by_itself(out: Out, call: Call, standin: Path, tar: Path) -> None:
    if not obstacles(host.gather(), Mode.SNP):  # a machine that has SEV: the test above is the one that counts
        assert Path("/dev/sev").exists()
        return
    answer = call("run", "--config", out.config, "--qemu", standin, "--rootfs", tar, "--", "true")
    assert answer.status == 2
    assert "this host cannot run a guest in mode snp" in answer.err


def test_old_qemu_cannot_protect(
    out: Out, call: Call, standin: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_VERSION", "7.2.22")
    words = ["--config", out.config, "--qemu", standin, "--rootfs", tar, "--", "true"]
    answer = call("run", *words)
    assert answer.status == 2
    assert "it takes 9.1.0 or later" in answer.err
    assert call("run", "--unprotected", "--accel", "tcg", *words).status == 0


def test_firmware_without_snp_metadata(
    tmp_path: Path, call: Call, standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Out(tmp_path / "other", firmware=firmware_image(sections=(1, 2)))
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    answer = call("run", "--config", out.config, "--qemu", standin, "--rootfs", tmp_path, "--", "true")
    assert answer.status == 2
    assert "\n  the firmware's SEV metadata lacks CPUID, KERNEL_HASHES\n" in answer.err


@pytest.mark.parametrize("path", ["/no/such/qemu", "/etc/passwd"])
def test_qemu_that_is_none(out: Out, call: Call, tar: Path, path: str) -> None:
    answer = call("run", "--unprotected", "--config", out.config, "--qemu", path, "--rootfs", tar, "--", "true")
    assert answer.status == 2
    assert "no executable file" in answer.one_line()
    answer = call("run", "--unprotected", "--config", out.config, "--qemu", "/bin/true", "--rootfs", tar, "--", "true")
    assert answer.status == 2
    assert "is no QEMU that runs here" in answer.one_line()


def test_append_may_not_repeat_the_agents_keys(out: Out, call: Call, standin: Path) -> None:
    words = ["show", "--unbound", "--unprotected", "--accel", "tcg", "--config", out.config, "--qemu", standin]
    answer = call(*words, "--append", "sev_agent.profile=debug")
    assert answer.status == 2
    assert "sev_agent.profile stands twice" in answer.one_line()
    for word in ("sev_agent.unbound", "sev_agent.workload=" + "0" * 64):
        answer = call(*words, "--append", word)
        assert answer.status == 2
        assert "says by itself what runs" in answer.one_line()
    answer = call(*words, "--append", "x" * 2047)
    assert answer.status == 2
    assert "the kernel takes 2047" in answer.one_line()


def test_console_log_needs_a_console(out: Out, call: Call, standin: Path, tmp_path: Path) -> None:
    words = ["show", "--unbound", "--unprotected", "--accel", "tcg", "--config", out.config, "--qemu", standin]
    words += ["--console-log", tmp_path / "log"]
    answer = call(*words)
    assert answer.status == 2
    assert "has no console" in answer.one_line()
    out.data["devices"]["console"] = "serial"
    out.data["profile"] = "debug"
    out.write()
    answer = call(*words)
    assert f"  -chardev file,id=console,path={tmp_path}/log \\\n  -device isa-serial,chardev=console \\" in answer.out


@pytest.mark.parametrize("behaviour", ["kvm-hangs", "kvm-fails"])
def test_kvm_is_tried_once_and_its_failure_remembered(
    out: Out,
    call: Call,
    standin: Path,
    tar: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    monkeypatch.setattr("tools.launcher.guest.accelerators.KVM_TRIAL", 1.0)
    monkeypatch.setitem(ENVIRONMENT, "STANDIN", behaviour)
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_LOG", str(tmp_path / "log"))
    words = [
        "run",
        "--unprotected",
        "--config",
        out.config,
        "--qemu",
        standin,
        "--rootfs",
        tar,
        "--",
        "echo",
        "hi",
    ]
    first, second = call(*words), call(*words)
    assert first.status == second.status == 0
    assert first.out == second.out == "hi\n"
    assert "no guest runs on this KVM" in first.err
    assert "no guest ran on this KVM before" in second.err
    accels = [json.loads(line)["argv"] for line in (tmp_path / "log").read_text().splitlines()]
    assert [words[words.index("-accel") + 1] for words in accels] == ["kvm", "tcg,tb-size=256", "tcg,tb-size=256"]
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_VERSION", "10.0.14")  # another QEMU is another trial
    assert "trying KVM" in call(*words).err


def test_working_kvm_is_used_and_remembered(
    out: Out, call: Call, standin: Path, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_LOG", str(tmp_path / "log"))
    words = ["run", "--unprotected", "--config", out.config, "--qemu", standin, "--rootfs", tar, "--", "true"]
    assert "trying KVM" in call(*words).err
    assert "KVM" not in call(*words).err
    assert all('"-accel", "kvm"' in line for line in (tmp_path / "log").read_text().splitlines())
    verdicts = tmp_path / "cache/sev-artifacts/kvm-verdicts.json"
    assert verdicts.stat().st_mode & 0o077 == 0
    for spoilt in (b"", b"[]", b"{" * 5000, b'{"verdicts": {"a": 3}}', b"\xff"):
        verdicts.write_bytes(spoilt)
        assert "trying KVM" in call(*words).err
    verdicts.unlink()
    verdicts.symlink_to(tmp_path / "elsewhere")
    assert call(*words).status == 0
    assert not (tmp_path / "elsewhere").exists()


def test_artifacts_that_never_boot_are_no_verdict_on_kvm(
    out: Out, call: Call, standin: Path, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", facts)
    monkeypatch.setitem(ENVIRONMENT, "STANDIN", "dies")
    words = ["run", "--unprotected", "--config", out.config, "--qemu", standin, "--rootfs", tar, "--", "true"]
    assert call(*words).status == 125
    assert not (tmp_path / "cache/sev-artifacts").exists()


def test_no_noise_from_an_older_qemu(
    out: Out, call: Call, standin: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It warns of our own option beside each error of the guest's."""
    monkeypatch.setitem(ENVIRONMENT, "STANDIN", "dies")
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_VERSION", "7.2.22")
    words = ["run", "--unprotected", "--accel", "tcg", "--config", out.config, "--qemu", standin, "--rootfs", tar]
    answer = call(*words, "--", "true")
    assert answer.status == 125
    assert "the stand-in refuses" in answer.err
    assert "opt/" not in answer.err


def test_missing_kvm(out: Out, call: Call, standin: Path, tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.launcher.host.facts.gather", lambda: facts(kvm_error="Permission denied"))
    words = ["run", "--unprotected", "--config", out.config, "--qemu", standin, "--rootfs", tar]
    answer = call(*words, "--", "true")
    assert answer.status == 0
    assert "no KVM here (/dev/kvm: Permission denied): emulating" in answer.err
    answer = call(*words, "--accel", "kvm", "--", "true")
    assert answer.status == 2
    assert "/dev/kvm: Permission denied" in answer.err


def test_the_warning_cannot_be_missed_or_silenced(out: Out, call: Call, standin: Path, tar: Path) -> None:
    words = [
        "--unprotected",
        "--accel",
        "tcg",
        "--quiet",
        "--qemu-user",
        OWN,
        "--config",
        out.config,
        "--qemu",
        standin,
        "--rootfs",
        tar,
    ]
    answer = call("run", *words, "--", "echo", "hi")
    assert (answer.status, answer.out) == (0, "hi\n")
    assert answer.err.count("\n") == 1
    assert "UNPROTECTED GUEST, NOT ENCRYPTED" in answer.err
    assert "\x1b" not in answer.err


def test_check(out: Out, call: Call) -> None:
    answer = call("check", "--config", out.config)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out == f"{out.config}: production 0.1.0, 3 artifacts and their launch digests in order\n"
    (out.folder / "vmlinuz").write_bytes(b"")
    answer = call("check", "--config", out.config)
    assert answer.status == 1
    assert "vmlinuz (kernel): has 0 bytes" in answer.one_line()
    (out.folder / "OVMF.fd").write_bytes(b"")
    assert "\n  " in call("check", "--config", out.config).err  # a line for each
    answer = call("check", "--json", "--config", out.config)
    assert (answer.status, answer.err) == (1, "")
    document = json.loads(answer.out)
    assert document["in_order"] is False
    assert {check["name"]: check["ok"] for check in document["checks"]} == {
        "kernel": False, "initramfs": True, "firmware": False,
    }  # fmt: skip
    assert call("check", "--config", out.folder / "none").status == 2  # the user's mistake
    assert call("check", "--jsn").status == 2


def test_run_without_sandbox(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run("true", STANDIN_LOG=str(log), STANDIN_NO_SANDBOX="1").returncode == 0
    assert "-sandbox" not in json.loads(log.read_text())["argv"]
