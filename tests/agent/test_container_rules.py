# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What processes of a booted guest cannot do, beside the documents that let them."""

import dataclasses

import pytest

from tests.agent.conftest import ENVIRONMENT, Bound, sh
from tools.attack.guests import agent as guest_kit
from tools.sev.workload.calls import Argument, Calls, Rule
from tools.sev.workload.document import DEFAULT_CAPABILITIES, Capabilities, Document, Exec, Mount, Process, Tar

CAPS = "grep -e CapInh -e CapPrm -e CapEff -e CapBnd -e CapAmb /proc/self/status"
CHOWN, KILL, SYSLOG = 1 << 0, 1 << 5, 1 << 34


def entries(*processes: Process) -> tuple[Exec, ...]:
    return tuple(Exec(name=f"e{n}", count=1, process=process) for n, process in enumerate(processes, 1))


def run_all(guest: guest_kit.Guest, document: Document) -> list[guest_kit.Result]:
    """Every process of the document."""
    numbers = range(1, len(document.exec) + 2)
    for number in numbers:
        guest.send(guest_kit.RUN, number, guest_kit.run_entry(entry=number - 1))
    results = guest.collect(numbers)
    return [results[number] for number in numbers]


def sets(result: guest_kit.Result) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1], 16) for line in result.out.decode().splitlines()}


def test_the_five_sets_of_capabilities(bound: Bound, root: Tar) -> None:
    both, kill = ("chown", "kill"), ("kill",)
    ambient = Capabilities(bounding=both, permitted=kill, effective=kill, inheritable=kill, ambient=kill)
    inherited = Capabilities(bounding=both, permitted=both, effective=both, inheritable=kill)
    show = sh(CAPS)
    document = Document(
        root=root,
        process=dataclasses.replace(show, capabilities=Capabilities.of(both, uid=0)),
        exec=entries(
            dataclasses.replace(show, uid=7, capabilities=Capabilities.of(both, uid=7)),
            dataclasses.replace(show, uid=7, capabilities=ambient),
            dataclasses.replace(show, capabilities=inherited),
            dataclasses.replace(show, capabilities=Capabilities.of((), uid=0)),
        ),
    )
    with bound(document) as guest:
        found = [sets(result) for result in run_all(guest, document)]
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    two = CHOWN | KILL
    assert found == [
        dict(zip(names, (0, two, two, two, 0), strict=True)),
        dict(zip(names, (0, 0, 0, two, 0), strict=True)),
        dict(zip(names, (KILL, KILL, KILL, two, KILL), strict=True)),
        dict(zip(names, (KILL, two, two, two, 0), strict=True)),
        dict.fromkeys(names, 0),
    ]


def test_the_kernels_log_and_new_namespaces(bound: Bound, root: Tar) -> None:
    """Each beside the same with the capability for it, or without the filter."""
    log, apart = sh("dmesg | grep -c Linux"), sh("unshare -m true && unshare -m mount -t tmpfs none /tmp && echo apart")
    own = sh("unshare -r -m mount -t tmpfs none /tmp && echo apart")
    admin = Capabilities.of((*DEFAULT_CAPABILITIES, "sys_admin"), uid=0)
    reads = Capabilities.of((*DEFAULT_CAPABILITIES, "syslog"), uid=0)
    document = Document(
        root=root,
        process=log,
        exec=entries(
            dataclasses.replace(log, capabilities=reads),
            own,
            dataclasses.replace(apart, capabilities=admin),
            dataclasses.replace(apart, capabilities=admin, seccomp=False),
            dataclasses.replace(apart, seccomp=False),
        ),
    )
    with bound(document) as guest:
        closed, opened, user, filtered, free, weak = run_all(guest, document)
    assert closed.out == b"0\n"
    assert b"not permitted" in closed.err
    assert int(opened.out) > 0
    for refused in (user, filtered, weak):
        assert refused.out == b""
        assert b"not permitted" in refused.err
    assert free.out == b"apart\n"


def test_a_filter_of_the_documents_own(bound: Bound, root: Tar) -> None:
    """mkdir (83) is denied with an error of its own, chmod (90) for one mode; the agent's filter has neither."""
    mode = Argument(index=1, operator="eq", value=0o4755, mask=0o7777)
    filter_ = Calls(
        default="allow",
        rules=(Rule(calls=(83,), action=95), Rule(calls=(90,), action=1, arguments=(mode,))),
    )
    script = sh(
        "mkdir /tmp/$$; chmod 755 /tmp && echo once; grep Seccomp: /proc/self/status; chmod 4755 /tmp && echo both"
    )
    calls = dataclasses.replace(script, seccomp=filter_)
    early = dataclasses.replace(calls, no_new_privileges=False)
    document = Document(root=root, process=calls, exec=entries(early, script))
    with bound(document) as guest:
        own, also, usual = run_all(guest, document)
    for result in (own, also):
        assert result.out == b"once\nSeccomp:\t2\n"
        assert b"Operation not supported" in result.err
        assert b"Operation not permitted" in result.err
    assert usual.out == b"once\nSeccomp:\t2\nboth\n"
    assert usual.err == b""


@pytest.mark.parametrize("protected", [True, False])
def test_masked_and_read_only_paths(bound: Bound, root: Tar, protected: bool) -> None:
    script = (
        "cat /data/secret; ls /data/folder; cat /data/fixed/inside; touch /data/fixed/new && echo fixed;"
        "touch /data/free/new && echo free; touch /new && echo root; touch /scratch/new && echo scratch;"
        "/data/fixed/inside; cat /proc/filesystems | grep -c erofs; df -k /dev/shm | grep -c ' 512 '; ls -d /dev/mqueue"
    )
    mounts = (Mount(target="/scratch", length=1 << 20), Mount(target="/dev/shm", length=1 << 19))
    document = Document(root=root, process=sh(script), mounts=mounts)
    if protected:
        document = dataclasses.replace(
            document,
            masked_paths=("/data/folder", "/data/nowhere", "/data/secret", "/proc/filesystems"),
            read_only_paths=("/data/fixed", "/data/nowhere/either"),
            read_only_root=True,
        )
    with bound(document) as guest:
        (result,) = run_all(guest, document)
    fixed, free, folder = b"fixed\n", b"fixed\nfree\nroot\n", b"hush\ninside\n"
    expected = (b"", fixed, b"", b"0\n") if protected else (folder, fixed, free, b"1\n")
    assert result.out == b"".join((*expected[:3], b"scratch\n", expected[3], b"1\n/dev/mqueue\n"))
    assert result.err.count(b"Read-only file system") == (3 if protected else 0)
    # A read-only path stays what it was otherwise: its programs run.
    assert b"fixed: not found" in result.err


def test_whoever_may_make_nodes_opens_none(bound: Bound, root: Tar) -> None:
    """With the capability for it, one would be the report interface, the disk or the port to the host; beside them the
    agent's own nodes. And process 1, which somebody with the capability to trace could become, may do nothing.
    """
    script = (
        "for folder in / /tmp /dev /dev/shm /scratch; do mknod $folder/node c 1 5 && head -c 1 $folder/node; done;"
        "head -c 3 /dev/zero | wc -c; echo gone > /dev/null; stat -c %a,%t,%T /dev/null;"
        "grep -h -e ^Cap /proc/1/status | cut -f 2 | sort -u"
    )
    makes = Capabilities.of((*DEFAULT_CAPABILITIES, "mknod"), uid=0)
    process = dataclasses.replace(sh(script), capabilities=makes)
    document = Document(root=root, process=process, mounts=(Mount(target="/scratch", length=1 << 20),))
    with bound(document) as guest:
        (result,) = run_all(guest, document)
    assert result.err.count(b"Permission denied") == 5, result.err
    assert result.out == b"3\n666,1,3\n0000000000000000\n"


def test_the_agents_image_is_out_of_reach(bound: Bound, root: Tar) -> None:
    """Until exec a child is the agent's program. A script whose interpreter is /proc/self/exe would run it again, in
    the container, where it could be opened; and somebody in there may look at each child before its exec.
    """
    watch = (
        "echo up; while ! test -e /tmp/stop; do readlink /proc/[0-9]*/exe; ls -l /proc/[0-9]*/exe; done 2>/dev/null"
        "| grep -o -e '/[a-z/]*busybox' -e /init | sort | sort -u"
    )
    own = Process(argv=("/data/self",), environment=ENVIRONMENT)
    script = Process(argv=("/data/script",), environment=ENVIRONMENT)
    # Between the last thing that the agent does for a child and its exec lies the search for the program.
    long = dataclasses.replace(sh("true"), environment=(f"PATH={'/no:' * 3_000}/bin",))
    nothing = Exec(name="nothing", count=10, process=long)
    stop = sh("touch /tmp/stop")
    document = Document(root=root, process=sh(watch), exec=(*entries(own, script, stop), nothing))
    with bound(document) as guest:
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        results = guest.collect_all([1], until=b"up\n")
        for number, entry in enumerate((1, 2, *(4 for _ in range(10)), 3), 2):
            guest.send(guest_kit.RUN, number, guest_kit.run_entry(entry=entry))
            guest.finish(number, results)
        guest.collect_all([], results=results)
    assert results[2].error is not None
    assert results[2].error[0] == 6
    assert (results[2].out, results[2].err) == (b"", b"")
    assert results[3].out == b"ran\n"
    # The watcher saw others' programs, and nothing else.
    assert results[1].out == b"up\n/bin/busybox\n"
