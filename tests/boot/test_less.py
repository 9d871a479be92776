# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the shipped kernel does without, because it would only be one more thing to attack."""

from tests.boot.conftest import Guest


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


def test_firmware_is_not_called_after_start(guest: Guest) -> None:
    """Without EFI's runtime services there is no firmware code that the kernel would run."""
    log = guest.sh("dmesg").stdout.decode()
    assert "efi: EFI v" in log
    assert "Registered efivars operations" not in log
