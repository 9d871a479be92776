# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A booted guest that is bound to a workload document, before a host that wants something else."""

import dataclasses
import struct
from pathlib import Path

import pytest

from tests.agent.conftest import ENVIRONMENT, Boot, bind, sh
from tools.attack.guests import agent as guest_kit
from tools.sev.workload.document import (
    Capabilities,
    Document,
    Doors,
    Exec,
    Mount,
    Rlimit,
    SuppliedFile,
    Tar,
    Variable,
)

ATTACKS = {
    b"cat /tmp/secret": b"hush\n",
    b"cat /proc/[0-9]*/environ | grep -c -a SECRET=hush": b"1\n",
    b"ls -d /sys/kernel/config/tsm/report": b"/sys/kernel/config/tsm/report\n",
    b"kill -9 -1; echo killed": b"killed\n",
}
"""Scripts of the host, and what it gets where nothing stops it."""


def test_a_second_process_of_the_hosts_choice(boot: Boot, root: Tar) -> None:
    """The attack: SPAWN on the port reads the workload's 0600 file and its environment, and reaches reports.

    Refused in a bound guest, and so is a second RUN; the guest goes on. Below, the same SPAWNs in an unbound one.
    """
    script = (
        "echo hush > /tmp/secret; chmod 600 /tmp/secret; echo up; while ! test -e /tmp/go; do sleep 0.1; done; exit 3"
    )
    workload = dataclasses.replace(sh(script), environment=(*ENVIRONMENT, "SECRET=hush"))
    document = Document(root=root, process=workload, exec=(Exec(name="go", count=1, process=sh("touch /tmp/go")),))
    attacks = {number: guest_kit.spawn(b"sh", b"-c", script) for number, script in enumerate(ATTACKS, 2)}
    with boot(binding=bind(document)) as guest:
        guest.bound(document.data).expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        results = guest.collect_all(range(1, 10), until=b"up\n")
        for number, attack in attacks.items():
            guest.send(guest_kit.SPAWN, number, attack)
        refused = [*attacks, 7, 8]
        guest.send(guest_kit.RUN, 7, guest_kit.run_entry())
        guest.send(guest_kit.RUN, 8, guest_kit.run_entry(entry=2))
        guest.send(guest_kit.RUN, 9, guest_kit.run_entry(entry=1))
        del results[6]
        guest.collect_all([], results=results)
        for process in refused:
            error = results[process].error
            assert error is not None
            assert error[0] == 9, error
            assert results[process].out == b""
        assert results[1].exited == (0, 0, 0, 3)
    with boot(binding="sev_agent.unbound") as guest:
        guest.ready()
        secret = b"export SECRET=hush; exec sh -c '%s'" % script.encode()
        guest.send(guest_kit.SPAWN, 1, guest_kit.spawn(b"sh", b"-c", secret))
        results = guest.collect_all([1], until=b"up\n")
        for (number, attack), got in zip(attacks.items(), ATTACKS.values(), strict=True):
            guest.send(guest_kit.SPAWN, number, attack)
            assert guest.finish(number, results).out == got


def test_a_refusal_may_end_the_guest(boot: Boot, root: Tar) -> None:
    document = Document(root=root, process=sh("sleep 1000"), end_on_refusal=True)
    with boot(binding=bind(document)) as guest:
        guest.bound(document.data).expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        guest.expect(guest_kit.STARTED)
        guest.send(guest_kit.SPAWN, 2, guest_kit.spawn(b"id"))
        words = guest.last_words()
        assert words is not None
        assert words[0] == 9
        assert "what runs" in words[1]


def code(result: guest_kit.Result) -> int | None:
    return None if result.error is None else result.error[0]


def test_what_the_document_does_not_open(boot: Boot, root: Tar) -> None:
    """Each beside the same where it is open: entry 1 has open doors, the workload has none."""
    variable = Variable(name="LEVEL", allow="word", length=8)
    script = "trap 'echo caught' TERM; read x; echo \"$x $LEVEL\"; sleep 6 & wait; wait"
    open_ = sh(script, stdin=True, signals=(15,), environment=(variable,))
    closed = dataclasses.replace(open_, host=Doors())
    silent = dataclasses.replace(open_, host=Doors(output=False))
    entries = (Exec(name="open", count=1, process=open_), Exec(name="silent", count=1, process=silent))
    document = Document(root=root, process=closed, exec=entries)
    with boot(binding=bind(document)) as guest:
        guest.bound(document.data).expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry(b"LEVEL=high"))
        guest.send(guest_kit.RUN, 2, guest_kit.run_entry(b"LEVEL=so high", entry=1, flags=0))
        guest.send(guest_kit.RUN, 3, guest_kit.run_entry(b"LEVEL=high", entry=1, flags=0))
        guest.send(guest_kit.RUN, 4, guest_kit.run_entry(flags=0))
        guest.send(guest_kit.RUN, 5, guest_kit.run_entry(entry=2, flags=0))
        for process in (3, 4):
            guest.send(guest_kit.STDIN, process, b"input\n")
        results = guest.collect_all(range(1, 6), until=b"input high\n")
        for process in (3, 4):
            guest.send(guest_kit.SIGNAL, process, struct.pack("<I", 15))
        guest.collect_all(range(1, 6), results=results)
        assert (code(results[1]), code(results[2])) == (9, 9)
        assert results[3].out == b"input high\ncaught\n"
        assert results[4].out == b" \n"
        assert results[5].out == b""
        assert results[5].exited == (0, 0, 0, 0)
        assert results[3].refused == []
        assert results[4].refused == [guest_kit.STDIN, guest_kit.SIGNAL]


def test_the_container_is_the_documents(boot: Boot, root: Tar) -> None:
    """Root, mounts, files, ids, limits, capabilities, filter and report interface, and the same left open."""
    script = (
        "id; cat /etc/given; touch /etc/given; cat /proc/self/mountinfo | grep -c ' /scratch '; "
        "ulimit -n; grep -e CapBnd -e NoNewPrivs -e Seccomp: /proc/self/status; cat /proc/sys/kernel/hostname; "
        "unshare -U true; ls /sys/kernel/config; kill -l >/dev/null"
    )
    bound = dataclasses.replace(
        sh(script),
        uid=1000,
        gid=1001,
        groups=(7,),
        capabilities=Capabilities.of(("kill",), uid=1000),
        rlimits=(Rlimit(name="nofile", soft=77, hard=88),),
    )
    free = dataclasses.replace(
        sh(script), capabilities=Capabilities.of(("chown", "kill"), uid=0), seccomp=False, no_new_privileges=False
    )
    document = Document(
        root=root,
        process=bound,
        exec=(Exec(name="free", count=1, process=free),),
        mounts=(Mount(target="/scratch", length=1 << 20), Mount(target="/etc", length=1 << 20)),
        files=(SuppliedFile(target="/etc/given", length=8), SuppliedFile(target="/etc/other", length=8)),
        hostname="box",
    )
    given = (guest_kit.FILE, struct.pack("<I", 0) + guest_kit.counted(b"content\n"))
    wrong = (guest_kit.FILE, struct.pack("<I", 1) + guest_kit.counted(b"too long\n"))
    with boot(binding=bind(document)) as guest:
        guest.bound(document.data, given, wrong, given)
        for _ in range(2):
            assert guest.expect(guest_kit.REFUSED)[0] == guest_kit.FILE
        guest.expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        guest.send(guest_kit.RUN, 2, guest_kit.run_entry(entry=1))
        results = guest.collect([1, 2])
        lines = results[1].out.decode().splitlines()
        assert lines[0].startswith("uid=1000 gid=1001 groups="), results[1]
        assert lines[0].endswith("7")
        assert lines[1:4] == ["content", "1", "77"]
        assert [line.split() for line in lines[4:7]] == [
            ["CapBnd:", f"{1 << 5:016x}"], ["NoNewPrivs:", "1"], ["Seccomp:", "2"],
        ]  # fmt: skip
        assert lines[7:] == ["box"]
        assert b"Read-only file system" in results[1].err or b"Permission denied" in results[1].err
        assert b"unshare(0x10000000): Operation not permitted" in results[1].err
        lines = results[2].out.decode().splitlines()
        assert [line.split()[1] for line in lines[4:7]] == [f"{1 << 5 | 1:016x}", "0", "0"]
        assert b"Read-only file system" in results[2].err
        # Behind the filter is the kernel, which knows no user namespaces.
        assert b"unshare(0x10000000): Invalid argument" in results[2].err


def test_another_document_is_not_read(boot: Boot, root: Tar) -> None:
    document = Document(root=root, process=sh("true"))
    other = dataclasses.replace(document, hostname="other")
    for data in (other.data, b"\xff", document.data + b" "):
        with boot(binding=bind(document)) as guest:
            guest.bound(data)
            words = guest.last_words()
            assert words is not None
            assert words[0] == 9
            assert document.sha256 in words[1]


def test_a_document_comes_first(boot: Boot, root: Tar) -> None:
    document = Document(root=root, process=sh("true"))
    with boot(binding=bind(document)) as guest:
        guest.expect(guest_kit.HELLO)
        guest.send(guest_kit.HELLO, payload=guest_kit.hello())
        guest.send(guest_kit.CONTAINER, payload=guest_kit.container())
        words = guest.last_words()
        assert words is not None
        assert words[0] == 9


def test_another_root_runs_nothing(boot: Boot, root: Tar, disk: Path, tmp_path: Path) -> None:
    """One bit of a file in it differs; the archive is in order otherwise."""
    document = Document(root=root, process=sh("true"))
    data = bytearray(disk.read_bytes())
    data[4096] ^= 1
    image = tmp_path / "other.tar"
    image.write_bytes(data)
    with boot(binding=bind(document), image=image) as guest:
        guest.bound(document.data)
        words = guest.last_words()
        assert words is not None
        assert words[0] == 4
        assert root.sha256 in words[1]


@pytest.mark.parametrize("binding", ["", f"sev_agent.unbound sev_agent.workload={'0' * 64}", "sev_agent.unbound=1"])
def test_without_one_word_nothing_runs(boot: Boot, binding: str) -> None:
    with boot(binding=binding) as guest:
        guest.expect(guest_kit.HELLO)
        words = guest.last_words()
        assert words is not None
        assert words[0] == 3
        assert "sev_agent." in words[1]
