# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the shipped kernels do without, because it would only be one more thing to attack."""

import dataclasses
from pathlib import Path

import pytest

from tools.attack.guests.run import Guest

_UNRESTRICTED = "sysctl.kernel.dmesg_restrict=0"


@pytest.fixture(scope="module")
def log(debug_guest: Guest, qemu: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the debug kernel, whose configuration is the same in all that matters here, says while it starts.

    Under Debian's QEMU, whose machine has more to look at than qemu-lite's.
    """
    path = tmp_path_factory.mktemp("log") / "console"
    done = dataclasses.replace(debug_guest, qemu=qemu).run(["true"], "--console-log", str(path))
    assert done.returncode == 0, done.stderr
    return path.read_text(errors="replace")


def test_no_user_namespaces(guest: Guest) -> None:
    """A workload that made one would have every capability in it, and could mount what it likes."""
    done = guest.sh("ls /proc/self/ns; unshare -r -m mount -t tmpfs none /tmp && echo mounted")
    namespaces = done.stdout.decode().split()
    assert "mnt" in namespaces, done.stderr
    assert not {"user", "mounted"} & set(namespaces)


def test_the_hosts_random_numbers_count_for_nothing(guest: Guest) -> None:
    """The device is there, and its driver takes it for a source without entropy."""
    done = guest.sh("cat /sys/module/rng_core/parameters/default_quality /sys/class/misc/hw_random/rng_current")
    quality, current = done.stdout.decode().split()
    assert current.startswith("virtio_rng"), done.stderr
    assert quality == "0"


def test_firmware_is_not_called_after_start(log: str) -> None:
    """Without EFI's runtime services there is no firmware code that the kernel would run."""
    assert "efi: EFI v" in log
    assert "Registered efivars operations" not in log


def test_the_hpet_is_not_looked_at(guest: Guest, qemu: Path, log: str) -> None:
    """QEMU's machine has one and a table that says so."""
    assert "ACPI: HPET 0x" in log
    assert "hpet" not in log
    listed = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
    done = dataclasses.replace(guest, qemu=qemu).sh(f"cat {listed}")
    clocks = done.stdout.decode().split()
    assert "acpi_pm" in clocks, done.stderr
    assert "hpet" not in clocks


def test_sockets_are_between_processes_only(guest: Guest) -> None:
    """No network, no vsock; with nothing to look at in /proc/net but sockets of the guest's own."""
    done = guest.sh("ls /proc/net; ls /sys/class/net; nc -w 1 127.0.0.1 9; cat /proc/filesystems")
    words = done.stdout.decode().split()
    assert {"unix", "netlink", "overlay", "erofs"} <= set(words), done.stderr
    assert not {"tcp", "udp", "raw", "packet", "vsock", "9p", "fuse", "virtiofs"} & set(words)
    assert b"not supported" in done.stderr


@pytest.mark.parametrize(("words", "reads"), [((), False), (("--append", _UNRESTRICTED), True)])
def test_the_kernels_log_takes_a_capability(guest: Guest, words: tuple[str, ...], reads: bool) -> None:
    """Without CAP_SYSLOG there is none; where the measured command line says so, there is: the control."""
    done = guest.sh("dmesg | grep -q 'Linux version' && echo read", "--user", "1000", *words)
    assert (done.stdout == b"read\n") is reads, done.stderr
