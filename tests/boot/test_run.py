# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A command in a booted guest: firmware, kernel, agent, launcher, all real."""

import dataclasses
import hashlib
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.attack.guests.run import Guest
from tools.attack.guests.verity import Verity, with_tree
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.tasks.project import Project


def test_output_and_status_of_the_readme(guest: Guest) -> None:
    """The command that the README shows."""
    done = guest.sh("id -u; exit 7")
    assert (done.stdout, done.returncode) == (b"0\n", 7), done.stderr


def test_an_unprotected_start_says_so(guest: Guest) -> None:
    """Loudly, on standard error; standard output is the workload's alone."""
    done = guest.sh("echo out; echo err >&2")
    assert done.returncode == 0
    assert done.stdout == b"out\n"
    assert b"err\n" in done.stderr
    assert b"NOT ENCRYPTED" in done.stderr.upper()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_is_128_plus_its_number(guest: Guest, number: signal.Signals) -> None:
    """As shells report it."""
    assert guest.sh(f"kill -{number} $$").returncode == 128 + number


def test_commands_that_cannot_run(guest: Guest) -> None:
    """127 for what is not there, 126 for what is there and cannot be executed."""
    missing = guest.run(["no-such-command"])
    assert missing.returncode == 127
    assert b"no-such-command" in missing.stderr
    assert guest.run(["/etc/motd"]).returncode == 126


def test_ten_megabytes_there_and_back(guest: Guest) -> None:
    """Byte-exact, with every byte value, through windows that are far smaller."""
    data = random.Random(7).randbytes(10_000_000)
    done = guest.run(["cat"], "--open", "stdin", stdin=data)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(data).hexdigest()


def test_the_command_that_asks_for_a_report(guest: Guest, repository: Path) -> None:
    """The one of docs/attestation.md, up to the missing processor: ENXIO, from the kernel's TSM reports."""
    found = re.search(
        r"^script='(r=/sys/kernel/config.*)'$", (repository / "docs/attestation.md").read_text(), re.MULTILINE
    )
    assert found
    done = guest.run(["sh", "-c", found[1]], "--open", "stdin", "--open", "raw-reports", stdin=bytes(64))
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"tsm/report/r': No such device or address" in done.stderr


def test_environment_user_and_working_directory(guest: Guest) -> None:
    """Exactly what was asked for, and no other variable."""
    done = guest.sh(
        "id -u; id -g; pwd; hostname; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort",
        "--user", "1000:1001", "--workdir", "/tmp", "--hostname", "box", "--env", "A=b c",
    )  # fmt: skip
    lines = done.stdout.decode().splitlines()
    assert lines[:4] == ["1000", "1001", "/tmp", "box"], done.stderr
    assert "A=b c" in lines
    assert not [line for line in lines[4:] if line.split("=")[0] not in {"A", "PATH", "HOME"}]


def test_the_workload_sees_its_own_root_only(guest: Guest, root_folder: Path) -> None:
    """Neither the initramfs nor the agent's mounts and processes are in reach, for root either."""
    done = guest.sh(
        "ls -a / | sort; echo --; cat /proc/mounts; echo --; ls -d /proc/[0-9]*; echo --; "
        "ls /proc/1/root/init || echo none; cd /; for i in 1 2 3 4 5 6 7 8; do cd ..; done; "
        "ls init || echo none; cat /etc/motd"
    )
    entries, mounts, processes, rest = done.stdout.decode().split("--\n")
    expected = {p.name for p in root_folder.iterdir()} | {".", ".."}
    assert set(entries.split()) <= expected | {"run"}, done.stderr
    assert expected <= set(entries.split())
    assert "/newroot" not in mounts
    assert all(line.split()[1].startswith("/") for line in mounts.splitlines())
    assert "rootfs / rootfs" not in mounts
    assert len(processes.split()) <= 4
    assert rest == "none\nnone\nfrom the container's root\n"


@pytest.mark.parametrize("kind", ["folder", "erofs"])
def test_other_kinds_of_root(guest: Guest, kind: str, request: pytest.FixtureRequest) -> None:
    """A directory and an EROFS image give the same root as the tar; all can be written to."""
    other = dataclasses.replace(guest, rootfs=request.getfixturevalue(f"root_{kind}"))
    # Without a hash tree nothing says which image that is.
    options = ["--unbound"] if kind == "erofs" else []
    script = "cat /etc/motd && echo new > /etc/motd && cat /etc/motd && touch /file && ls /file"
    done = other.sh(script, *options)
    assert done.stdout == b"from the container's root\nnew\n/file\n", done.stderr
    assert done.returncode == 0


@pytest.fixture(scope="session")
def verity(root_erofs: Path, host_tool: Callable[[str], Path]) -> Verity:
    """The EROFS root with its hash tree."""
    return with_tree(root_erofs, host_tool("veritysetup"))


@pytest.mark.parametrize("unbound", [False, True])
def test_verity_root(guest: Guest, verity: Verity, unbound: bool) -> None:
    """The right root hash: the root is there, whether the workload document has the hash or the command line."""
    options = ["--verity", verity.root_hash, *(["--unbound"] if unbound else [])]
    done = dataclasses.replace(guest, rootfs=verity.image).sh("cat /etc/motd", *options)
    assert done.stdout == b"from the container's root\n", done.stderr
    assert (b"launch digest changes" in done.stderr) is unbound


def test_verity_refuses_another_root_hash(guest: Guest, verity: Verity) -> None:
    """One digit of the measured root hash differs: the workload never runs."""
    wrong = ("0" if verity.root_hash[0] != "0" else "1") + verity.root_hash[1:]
    done = dataclasses.replace(guest, rootfs=verity.image).sh("cat /etc/motd", "--verity", wrong)
    assert (done.stdout, done.returncode) == (b"", 125), done.stderr


def test_verity_notices_one_changed_bit(guest: Guest, verity: Verity, tmp_path: Path) -> None:
    """One bit of every data block changes, so whatever is read is wrong; the guest stops."""
    data = bytearray(verity.image.read_bytes())
    # Not in the superblock's block: the launcher would refuse the image before the guest could.
    for block in range(1, verity.data_size // 4096):
        data[block * 4096 + 100] ^= 1
    changed = tmp_path / "changed.erofs"
    changed.write_bytes(data)
    done = dataclasses.replace(guest, rootfs=changed).sh("cat /etc/motd", "--verity", verity.root_hash)
    assert (done.stdout, done.returncode) == (b"", 125), done.stderr


def test_a_host_cannot_talk_the_agent_out_of_verity(guest: Guest) -> None:
    """The measured command line demands verity, the host offers a tar: refused."""
    demand = f"sev_agent.verity={'0' * 64}:-:16"
    done = guest.sh("id", "--unbound", "--append", demand)
    assert (done.stdout, done.returncode) == (b"", 125), done.stderr


def test_more_vcpus_and_memory(guest: Guest) -> None:
    """The options reach the guest."""
    done = guest.sh("nproc; awk '/MemTotal/ {print $2}' /proc/meminfo", "--cpus", "2", "--memory", "768M")
    cpus, memory = done.stdout.split()
    assert cpus == b"2", done.stderr
    assert 600_000 < int(memory) < 786_432


def test_builtin_initramfs(project: Project, of_series: Callable[[str], Profile], qemu: Path, root_tar: Path) -> None:
    """The kernel that carries its initramfs boots to the same agent, with no initramfs beside it."""
    folder = project.out(of_series("builtin"))
    assert not (folder / "initramfs.cpio.zst").exists()
    done = Guest(launcher=folder / "sev-launch", qemu=qemu, rootfs=root_tar).sh("id -u; exit 7")
    assert (done.stdout, done.returncode) == (b"0\n", 7), done.stderr


def test_what_the_production_kernel_keeps_from_a_workload(guest: Guest) -> None:
    """No vulnerability that the kernel itself reports, no modules, no image or log of the kernel's memory."""
    done = guest.sh(
        "cd /sys/devices/system/cpu/vulnerabilities; ls | grep -c .; "
        # The one whose mitigation is a feature that the emulated CPU does not have.
        "grep -l ^Vulnerable * | grep -v spec_store_bypass || echo mitigated; "
        "for f in /proc/modules /proc/kcore /proc/config.gz /dev/mem /dev/kmsg /sys/kernel/debug/swiotlb; "
        "do test -e $f && echo $f; done; uname -v"
    )
    known, verdict, version = done.stdout.decode().splitlines()
    assert int(known) > 5
    assert verdict == "mitigated"
    # The build's constant date, not the day of the build.
    assert "2025" in version
