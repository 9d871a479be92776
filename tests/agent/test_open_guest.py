# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Booted guests as container engines want them: any command, parameters of the kernel, an engine's defaults."""

import dataclasses
import struct

from tests.agent.conftest import Boot, Bound, bind, sh
from tools.attack.guests import agent as guest_kit
from tools.sev.workload.document import Capabilities, Document, Exec, Rlimit, SuppliedFile, Sysctl, Tar
from tools.sev.workload.engines import ENGINES

STATUS = "grep -e CapBnd -e CapEff -e NoNewPrivs -e Seccomp: -e Umask /proc/self/status; ulimit -n; id -u"
BOTH = 1 << 0 | 1 << 5  # chown, kill


def fields(result: guest_kit.Result) -> list[str]:
    return [line.split()[-1] for line in result.out.decode().splitlines()]


def test_any_command_under_the_workloads_rules(bound: Bound, root: Tar) -> None:
    """Closed, the same SPAWN is refused: tests/agent/test_bound_guest.py."""
    workload = dataclasses.replace(
        sh("echo hush > /tmp/secret; sleep 1000"),
        uid=1000,
        umask=0o077,
        capabilities=Capabilities.of(("chown", "kill"), uid=1000),
        rlimits=(Rlimit(name="nofile", soft=77, hard=88),),
    )
    document = Document(root=root, process=workload, host_exec=True, masked_paths=("/data/secret",))
    with bound(document) as guest:
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        guest.send(guest_kit.SPAWN, 2, guest_kit.spawn(b"sh", b"-c", STATUS.encode()))
        guest.send(guest_kit.SPAWN, 3, guest_kit.spawn(b"sh", b"-c", STATUS.encode(), uid=7))
        guest.send(guest_kit.SPAWN, 4, guest_kit.spawn(b"cat", b"/data/secret", b"-"))
        guest.send(guest_kit.STDIN, 4, b"typed\n")
        guest.send(guest_kit.STDIN_EOF, 4)
        guest.send(guest_kit.SPAWN, 5, guest_kit.spawn(b"sh", b"-c", b"tty; stty size", flags=1, size=(9, 33)))
        guest.send(guest_kit.SPAWN, 6, guest_kit.spawn(b"nowhere"))
        guest.send(guest_kit.SPAWN, 7, guest_kit.spawn(b"sh", b"-c", b"kill -9 $$"))
        guest.send(guest_kit.SPAWN, 8, guest_kit.spawn(b"sleep", b"1000"))
        guest.send(guest_kit.SIGNAL, 8, struct.pack("<I", 64))
        results = {number: guest_kit.Result() for number in range(1, 9)}
        for number in range(2, 9):
            guest.finish(number, results)
        guest.send(guest_kit.SIGNAL, 1, struct.pack("<I", 9))
        refused = guest.expect(guest_kit.REFUSED)
    assert fields(results[2]) == ["0077", f"{BOTH:016x}", f"{BOTH:016x}", "1", "2", "77", "0"], results[2]
    assert fields(results[3]) == ["0077", f"{0:016x}", f"{BOTH:016x}", "1", "2", "77", "7"]
    assert results[4].out == b"typed\n"
    assert results[5].out == b"/dev/pts/0\r\n9 33\r\n"
    assert results[6].error is not None
    assert results[6].error[0] == 5
    assert results[7].exited == (1, 0, 0, 9)
    assert results[8].exited == (1, 0, 0, 64)
    # The workload's own doors are as closed as the document has them.
    assert refused[0] == guest_kit.SIGNAL


def test_parameters_of_the_kernel(bound: Bound, root: Tar) -> None:
    script = sh(
        "cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmax; echo 1 > /proc/sys/kernel/shmmax; umask;"
        "ls /sys/dev/block | grep -c :"
    )
    document = Document(
        root=root,
        process=script,
        sysctls=(
            Sysctl(name="kernel.domainname", value="example.org"),
            Sysctl(name="kernel.shmmax", value="65536"),
            Sysctl(name="net.ipv4.ip_unprivileged_port_start", value="0"),
        ),
    )
    with bound(document) as guest:
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
    # The last line: what an engine masks, and nobody else does, is there.
    assert result.out.startswith(b"example.org\n65536\n0022\n"), result
    assert int(result.out.split()[3]) > 0
    assert b"Read-only file system" in result.err


def test_a_parameter_that_is_not_there(boot: Boot, root: Tar) -> None:
    document = Document(root=root, process=sh("true"), sysctls=(Sysctl(name="fs.mqueue.nothing", value="1"),))
    with boot(binding=bind(document)) as guest:
        guest.bound(document.data)
        words = guest.last_words()
    assert words is not None
    assert words[0] == 3
    assert "sysctl fs.mqueue.nothing" in words[1]


def test_engines_defaults(bound: Bound, root: Tar) -> None:
    """Programs run under each of them; what they refuse is refused: new mounts with EPERM, kexec with the engine's."""
    script = sh(
        "grep -e CapBnd -e Seccomp: /proc/self/status; ulimit -n; unshare -m true; ls /sys/dev/block | wc -l; id -u"
    )
    named = {
        name: dataclasses.replace(script, capabilities=name, rlimits=name, seccomp=name, no_new_privileges=False)
        for name in ENGINES
    }
    first, *others = named.values()
    document = Document(
        root=root,
        process=first,
        exec=tuple(Exec(name=name, count=1, process=process) for name, process in zip(named, others, strict=False)),
        masked_paths="podman-1",
        read_only_paths="docker-1",
    )
    with bound(document) as guest:
        numbers = range(1, len(named) + 1)
        for number in numbers:
            guest.send(guest_kit.RUN, number, guest_kit.run_entry(entry=number - 1))
        results = guest.collect(numbers)
    for (name, process), number in zip(named.items(), numbers, strict=True):
        found = results[number]
        lines = found.out.decode().split()
        assert int(lines[1], 16).bit_count() == len(process.sets.bounding), name
        assert lines[2:4] == ["Seccomp:", "2"]
        limit = "1048576" if name.startswith("podman") else None
        assert limit in (None, lines[4])
        assert lines[5:] == ["0", "0"]
        assert b"unshare" in found.err
        assert b"not permitted" in found.err


def test_empty_files_where_no_folder_is(boot: Boot, root: Tar) -> None:
    """As engines mark a container: /.dockerenv, and podman's below a folder that the image may not have."""
    targets = ("/.dockerenv", "/run/.containerenv", "/etc/hosts")
    document = Document(
        root=root,
        process=sh(f"wc -c {' '.join(targets[:2])}; cat /etc/hosts; echo x > /.dockerenv"),
        files=tuple(
            SuppliedFile(target=target, length=length) for target, length in zip(targets, (0, 0, 9), strict=True)
        ),
    )
    files = [(n, struct.pack("<I", n) + guest_kit.counted(data)) for n, data in enumerate((b"", b"", b"hosts\n"))]
    with boot(binding=bind(document)) as guest:
        too_long = struct.pack("<I", 0) + guest_kit.counted(b"x")
        guest.bound(document.data, (guest_kit.FILE, too_long), *((guest_kit.FILE, payload) for _, payload in files))
        assert guest.expect(guest_kit.REFUSED)[0] == guest_kit.FILE
        guest.expect(guest_kit.READY)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
    assert [line.split()[0] for line in result.out.decode().splitlines()] == ["0", "0", "0", "hosts"], result
    assert b"Read-only file system" in result.err


def test_a_working_directory_that_the_image_has_not(bound: Bound, root: Tar) -> None:
    """Made as engines make it: root's, whoever the workload is."""
    document = Document(root=root, process=dataclasses.replace(sh("pwd; stat -c '%a %u' ."), uid=1000, cwd="/new/one"))
    with bound(document) as guest:
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
    assert result.out == b"/new/one\n755 0\n", result
