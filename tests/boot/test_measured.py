# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The firmware starts nothing but what the hashes table names.

Emulated: QEMU's loader device puts the table where QEMU itself writes it for a protected guest. That the
table is part of the launch digest, only SEV hardware shows; what the firmware does with it is the same here.
In each group is a guest of the same host for which nothing was changed, and which boots.
"""

import hashlib
import struct
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from tests.boot.conftest import Guest
from tests.boot.measured_kit import Host, Verdict, stays, verdicts

_UNCHANGED = "nothing changed"
# QEMU target/i386/sev.c, SevHashTable: GUID and length of the table, then entries of GUID, length, SHA-256.
_HEAD, _ENTRY = 18, 50
_CMDLINE, _INITRD, _KERNEL = range(3)


@pytest.fixture(scope="module")
def host(guest: Guest) -> Host:
    """An honest one."""
    return Host.of(guest.launcher, guest.qemu)


def _flip(data: bytes | None, at: int) -> bytes:
    assert data is not None
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _entries(table: bytes | None) -> list[bytes]:
    assert table is not None
    return [table[_HEAD + i * _ENTRY :][:_ENTRY] for i in range(3)]


def _table(entries: list[bytes], *, head: bytes, length: int | None = None) -> bytes:
    body = b"".join(entries)
    length = _HEAD + len(body) if length is None else length
    return (head[:16] + struct.pack("<H", length) + body).ljust(176, b"\0")


def _vouching(host: Host) -> Host:
    """The same host with a table for what it hands out."""
    assert host.kernel is not None
    entries = _entries(host.table)
    for index, blob in ((_CMDLINE, host.cmdline.encode() + b"\0"), (_KERNEL, host.kernel)):
        entries[index] = entries[index][:18] + hashlib.sha256(blob).digest()
    return replace(host, table=_table(entries, head=host.table or b""))


def _all_refused(hosts: dict[str, Host]) -> dict[str, Verdict]:
    return {name: Verdict.BOOTED if name == _UNCHANGED else Verdict.REFUSED for name in hosts}


def test_other_blobs_than_the_tables_never_start(host: Host, tmp_path: Path) -> None:
    """The offsets lie inside the payloads: no file is rejected for its form before its hash is looked at."""
    assert host.kernel is not None
    # The text that only `file` and boot loaders show: this kernel runs as well as the right one.
    other = host.kernel.replace(b"(sev-artifacts@", b"(SEV-artifacts@", 1)
    assert other != host.kernel
    changed = replace(host, kernel=other, cmdline=host.cmdline + " x")
    hosts = {
        _UNCHANGED: host,
        "one bit of the kernel": replace(host, kernel=_flip(host.kernel, 1_000_000)),
        # type_of_loader of the setup header, which QEMU itself fills in for guests that are not measured.
        "the kernel's setup header": replace(host, kernel=_flip(host.kernel, 0x210)),
        "another kernel": replace(host, kernel=other),
        "another kernel and a word more, under a table of their own": _vouching(changed),
        "one bit of the initramfs": replace(host, initramfs=_flip(host.initramfs, 100_000)),
        "no initramfs": replace(host, initramfs=None),
        "one bit of the command line": replace(host, cmdline=host.cmdline.replace("quiet", "puiet")),
        "a word more": replace(host, cmdline=host.cmdline + " x"),
        "no kernel": replace(host, kernel=None, initramfs=None),
        # The firmware's boot code starts it in the kernel's place, if it gets that far.
        "a shim": replace(host, blobs={"shim": other}),
        "a blob of another name": replace(host, blobs={"other": b"x"}),
    }
    boots = {"another kernel and a word more, under a table of their own": Verdict.BOOTED}
    assert verdicts(hosts, tmp_path) == _all_refused(hosts) | boots


def test_other_tables_start_nothing(host: Host, tmp_path: Path) -> None:
    """Damaged, incomplete, absent, or of another blob."""
    entries, head = _entries(host.table), host.table or b""
    bit = {i: _flip(entries[i], 18) for i in range(3)}

    def with_table(new: list[bytes], **how: int) -> Host:
        return replace(host, table=_table(new, head=head, **how))

    def other(index: int, entry: bytes) -> list[bytes]:
        return [entry if i == index else entries[i] for i in range(3)]

    def exchanged(a: int, b: int) -> list[bytes]:
        order = {a: b, b: a}
        return [entries[i][:18] + entries[order.get(i, i)][18:] for i in range(3)]

    def resized(index: int, length: int) -> list[bytes]:
        return other(index, entries[index][:16] + struct.pack("<H", length) + entries[index][18:])

    hosts = {
        _UNCHANGED: host,
        "the same, built here": with_table(entries),
        "none": replace(host, table=None),
        "another table GUID": replace(host, table=_flip(host.table, 0)),
        "no entry for the command line": with_table([entries[_INITRD], entries[_KERNEL]]),
        "no entry for the initramfs": with_table([entries[_CMDLINE], entries[_KERNEL]]),
        "no entry for the kernel": with_table([entries[_CMDLINE], entries[_INITRD]]),
        "no entries": with_table([]),
        "another entry GUID": with_table(other(_KERNEL, _flip(entries[_KERNEL], 0))),
        "a table that ends too early": with_table(entries, length=_HEAD + 3 * _ENTRY - 1),
        "a table shorter than its header": with_table(entries, length=_HEAD - 1),
        "a table longer than its area": with_table(entries, length=0x401),
        "an entry that is too short": with_table(resized(_CMDLINE, _ENTRY - 1)),
        "an entry that is too long": with_table(resized(_INITRD, _ENTRY + 1)),
        "a last entry that is too long": with_table(resized(_KERNEL, _ENTRY + 1)),
        "one bit of the command line's hash": with_table(other(_CMDLINE, bit[_CMDLINE])),
        "one bit of the initramfs' hash": with_table(other(_INITRD, bit[_INITRD])),
        "one bit of the kernel's hash": with_table(other(_KERNEL, bit[_KERNEL])),
        "kernel's and initramfs' hashes exchanged": with_table(exchanged(_KERNEL, _INITRD)),
        "initramfs' and command line's hashes exchanged": with_table(exchanged(_INITRD, _CMDLINE)),
    }
    assert verdicts(hosts, tmp_path) == _all_refused(hosts) | {"the same, built here": Verdict.BOOTED}


def test_a_table_in_another_order_verifies_as_well(host: Host, tmp_path: Path) -> None:
    """Entries are found by GUID, and the table's length may say more than there is: another launch digest,
    but no blob goes unverified."""
    entries, head = _entries(host.table), host.table or b""
    reordered = replace(host, table=_table(entries[::-1], head=head))
    longer = replace(host, table=_table(entries, head=head, length=0x400))
    hosts = {
        "reordered": reordered,
        "longer": longer,
        "reordered, one bit of the kernel": replace(reordered, kernel=_flip(host.kernel, 1_000_000)),
        "longer, a word more": replace(longer, cmdline=host.cmdline + " x"),
    }
    found = verdicts(hosts, tmp_path)
    assert list(found.values()) == [Verdict.BOOTED, Verdict.BOOTED, Verdict.REFUSED, Verdict.REFUSED]


def test_firmware_in_flash_refuses_the_same(host: Host, guest: Guest, tmp_path: Path) -> None:
    """Where SEV and SEV-ES guests have it; the tests above start it where SEV-SNP guests do."""
    flash = host.through_pflash(guest.launcher, guest.qemu)
    hosts = {
        _UNCHANGED: flash,
        "one bit of the kernel": replace(flash, kernel=_flip(flash.kernel, 1_000_000)),
        "one bit of the initramfs": replace(flash, initramfs=_flip(flash.initramfs, 100_000)),
        "a word more": replace(flash, cmdline=flash.cmdline + " x"),
        "no table": replace(flash, table=None),
        "a shim": replace(flash, blobs={"shim": flash.kernel or b""}),
    }
    assert verdicts(hosts, tmp_path) == _all_refused(hosts)


@pytest.mark.parametrize(
    ("step", "seconds", "verdict"),
    [
        (0, 0.05, True),
        (8, 0.05, False),  # code that goes on
        (0, 0.0, False),  # a machine so busy that QEMU does not run
        (0, 0.001, False),  # … or hardly
    ],
)
def test_only_used_processor_time_makes_a_dead_loop(step: int, seconds: float, verdict: bool) -> None:
    """The judge itself: one place for long enough, by QEMU's own clock."""
    samples: deque[tuple[int, float]] = deque()
    for i in range(40):
        samples.append((0x1F00_0000 + i * step, i * seconds))
        found = stays(samples)
    assert found is verdict
