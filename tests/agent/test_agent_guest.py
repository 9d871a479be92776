# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The agent in a booted guest, before a host that breaks the rules."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.conftest import Boot
from tools.attack.guests import agent as guest_kit


def test_two_processes_windows_and_signals(boot: Boot) -> None:
    with boot() as guest:
        guest.ready()
        # Neither a full stdin nor an exhausted output window stops anything else.
        guest.send(guest_kit.SPAWN, 1, guest_kit.spawn(b"sleep", b"1000"))
        for _ in range(4):
            guest.send(guest_kit.STDIN, 1, bytes(65_536))
        guest.send(guest_kit.SPAWN, 2, guest_kit.spawn(b"yes"))
        seen = 0
        while seen < guest_kit.WINDOW_BYTES:
            frame = guest.receive()
            assert frame is not None
            seen += len(frame[2]) if frame[0] == guest_kit.STDOUT else 0
        assert seen == guest_kit.WINDOW_BYTES
        assert guest.run(3, b"sh", b"-c", b"echo still here; exit 3").exited == (0, 0, 0, 3)
        guest.send(guest_kit.SIGNAL, 1, struct.pack("<I", 15))
        assert guest.collect([1])[1].exited == (1, 0, 0, 15)
        guest.send(guest_kit.SIGNAL, 2, struct.pack("<I", 9))
        guest.send(guest_kit.WINDOW, 2, struct.pack("<BBBBI", 1, 0, 0, 0, 1 << 20))
        assert guest.collect([2])[2].exited == (1, 0, 0, 9)
        # For processes that are over, what was under way is dropped.
        guest.send(guest_kit.STDIN, 1, b"late")
        guest.send(guest_kit.SIGNAL, 2, struct.pack("<I", 9))
        assert guest.run(4, b"sh", b"-c", b"sleep 1000 & exit 4").exited == (0, 0, 0, 4)
        guest.send(guest_kit.SHUTDOWN)
        assert guest.last_words() is None


def test_workload_is_confined_to_its_root(boot: Boot) -> None:
    with boot() as guest:
        guest.ready()
        assert guest.run(1, b"ls", b"/").out.split() == [b"bin", b"data", b"dev", b"proc", b"sys", b"tmp"]
        mounts = guest.run(2, b"cat", b"/proc/self/mountinfo").out.decode()
        points = [line.split()[4] for line in mounts.splitlines()]
        assert points[0] == "/"
        assert not [p for p in points if p.startswith(("/run", "/newroot")) or "security" in p]
        pids = [name for name in guest.run(3, b"ls", b"/proc").out.split() if name.isdigit()]
        assert len(pids) == 2  # the reaper and ls
        for number, (command, allowed) in enumerate(
            {
                b"mount -t tmpfs none /tmp": False,
                b"umount /proc": False,
                b"mknod /tmp/d b 254 0": False,
                b"ls /proc/1/root/": False,
                b"cat /proc/1/environ": False,
                b"echo b > /proc/sysrq-trigger": False,
                b"echo x > /proc/sys/kernel/core_pattern": False,
                b"echo x > /sys/new": False,
                # Controls: the same kinds of call where they are harmless.
                b"mkdir /tmp/d && ls /tmp/d": True,
                b"chroot / /bin/id": True,
                b"ls /proc/self/root/": True,
                b"cat /proc/self/environ": True,
                b"echo x > /dev/null": True,
            }.items(),
            10,
        ):
            result = guest.run(number, b"sh", b"-c", command)
            assert result.exited is not None
            assert (result.exited[:2], result.exited[3] == 0) == ((0, 0), allowed), (command, result)


def test_a_workload_can_ask_for_an_attestation_report(boot: Boot) -> None:
    """As far as that goes without an SNP processor: configfs-tsm has no provider then, and says ENXIO."""
    with boot() as guest:
        guest.ready()
        assert guest.run(1, b"ls", b"/sys/kernel/config").out == b"tsm\n"
        ask = (b"mkdir", b"/sys/kernel/config/tsm/report/r")
        assert b"No such device or address" in guest.run(2, *ask).err
        # The group is root's; and nothing else of /sys has become writable.
        assert b"Permission denied" in guest.run(3, *ask, uid=1000).err
        assert b"Read-only file system" in guest.run(4, b"mkdir", b"/sys/kernel/x").err


def test_spawn_errors_concern_one_process(boot: Boot) -> None:
    with boot() as guest:
        guest.ready()
        cases: list[tuple[bytes, int]] = [
            (guest_kit.spawn(b"no-such-program"), 5),
            (guest_kit.spawn(b"/bin"), 6),
            (guest_kit.spawn(b"sh", flags=1, size=(4097, 80)), 3),
            (guest_kit.spawn(b"sh", uid=0xFFFF_FFFF), 3),
            (guest_kit.spawn(b"a\0b"), 3),
        ]
        for process, (payload, code) in enumerate(cases, 1):
            guest.send(guest_kit.SPAWN, process, payload)
            error = guest.collect([process])[process].error
            assert error is not None
            assert error[0] == code
        assert guest.run(9, b"id", uid=1000).out == b"uid=1000 gid=1000 groups=1000\n".replace(b" groups=1000", b"")


@pytest.mark.parametrize(
    "violation",
    [
        lambda g: g.send(guest_kit.HELLO, payload=guest_kit.hello(version=3)),
        lambda g: g.send(guest_kit.HELLO, payload=guest_kit.hello(magic=b"SEVB")),
        lambda g: g.raw(b"GET / HTTP/1.1\r\n\r\n"),
        lambda g: g.send(guest_kit.CONTAINER, payload=guest_kit.container()),
        lambda g: (
            g.send(guest_kit.HELLO, payload=guest_kit.hello()),
            g.send(guest_kit.SPAWN, 1, guest_kit.spawn(b"id")),
        ),
        lambda g: (
            g.send(guest_kit.HELLO, payload=guest_kit.hello()),
            g.raw(struct.pack("<BBHII", 0x12, 0, 0, 1, 65_537)),
        ),
    ],
    ids=["version", "magic", "not frames", "before HELLO", "before READY", "long frame"],
)
def test_a_violation_ends_the_guest(boot: Boot, violation: Callable[[guest_kit.Guest], object]) -> None:
    with boot() as guest:
        guest.expect(guest_kit.HELLO)
        violation(guest)
        words = guest.last_words()
        assert words is not None
        assert words[0] == 1
        assert "Kernel panic" not in guest.log()


def test_stdin_beyond_the_window_ends_the_guest(boot: Boot) -> None:
    with boot() as guest:
        guest.ready()
        guest.send(guest_kit.SPAWN, 1, guest_kit.spawn(b"sleep", b"1000"))
        # The pipe takes 64 KiB at once, which are granted anew; one byte more than that is too much.
        for _ in range(5):
            guest.send(guest_kit.STDIN, 1, bytes(65_536))
        guest.send(guest_kit.STDIN, 1, b"x")
        words = guest.last_words()
        assert words is not None
        assert words[0] == 1


def test_a_vanished_host_ends_the_guest(boot: Boot) -> None:
    with boot() as guest:
        guest.ready()
        guest.send(guest_kit.SPAWN, 1, guest_kit.spawn(b"sleep", b"1000"))
        guest.expect(guest_kit.STARTED)
        guest.link.close()
        assert guest.process.wait(120) == 0


@pytest.mark.parametrize(
    ("append", "kind", "code", "text"),
    [
        ("sev_agent.verty=1", 1, 3, "verty"),
        (f"sev_agent.verity={'0' * 64}:-:1", 1, 4, "dm-verity"),
        ("", 2, 4, "EROFS"),
        ("", 3, 2, "root kind"),
    ],
    ids=["misspelt key", "tar where verity is demanded", "tar as EROFS", "unknown kind"],
)
def test_a_refused_root_ends_the_guest(boot: Boot, append: str, kind: int, code: int, text: str) -> None:
    with boot(append=append) as guest:
        guest.expect(guest_kit.HELLO)
        if "verty" not in append:
            guest.send(guest_kit.HELLO, payload=guest_kit.hello())
            guest.send(guest_kit.CONTAINER, payload=guest_kit.container(kind=kind))
        words = guest.last_words()
        assert words is not None
        assert words[0] == code
        assert text in words[1]


def test_a_zeroed_disk_is_not_a_root(boot: Boot, tmp_path: Path) -> None:
    image = tmp_path / "zero"
    image.write_bytes(bytes(1 << 20))
    with boot(image=image) as guest:
        guest.expect(guest_kit.HELLO)
        guest.send(guest_kit.HELLO, payload=guest_kit.hello())
        guest.send(guest_kit.CONTAINER, payload=guest_kit.container())
        assert guest.last_words() == (4, "tar: the archive has no members")
