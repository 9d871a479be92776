# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Standard streams, terminals and statuses, as they are with runc."""

import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.engines.kit import Docker
from tests.launcher.terminal_kit import Desk

PLAIN = ("--rm", "--network=none")


@pytest.mark.parametrize(
    ("script", "status"),
    [("true", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$; sleep 9", 143), ("kill -KILL $$; sleep 9", 137)],
)
def test_statuses(docker: Docker, script: str, status: int) -> None:
    # A second shell: the first process of a container cannot kill itself.
    done = docker.run(*PLAIN, argv=["sh", "-c", f"sh -c '{script}' 2>/dev/null; exit $?"])
    assert (done.status, done.out, done.err) == (status, b"", b"")


@pytest.mark.parametrize(("program", "status"), [("/absent", 127), ("absent", 127), ("/etc/passwd", 126)])
def test_programs_that_cannot_start(docker: Docker, program: str, status: int) -> None:
    done = docker.run(*PLAIN, argv=[program])
    assert done.status == status, done
    assert program in done.complaint


def test_streams_are_apart_and_exact(docker: Docker) -> None:
    """Every byte, more of them than any buffer holds; the two streams each with their own."""
    blob = bytes(range(256)) * 4096
    done = docker.run("-i", *PLAIN, argv=["sh", "-c", "tee /dev/stderr | md5sum >&2"], stdin=blob)
    assert (done.status, done.out) == (0, b"")
    assert done.err == blob + f"{hashlib.md5(blob).hexdigest()}  -\n".encode()
    done = docker.run("-i", *PLAIN, argv=["sh", "-c", "cat; echo done >&2"], stdin=blob)
    assert (done.status, done.out == blob, done.err) == (0, True, b"done\n")


def test_without_stdin(docker: Docker) -> None:
    assert docker.run(*PLAIN, argv=["wc", "-c"], stdin=b"not for it").out == b"0\n"


def test_the_issues_example(docker: Docker) -> None:
    assert docker.says("-i", *PLAIN, argv=["md5sum"], stdin=b"data\n") == "6137cde4893c59f76f005a8123d8e8e6  -\n"


def test_a_gibibyte_there_and_back(docker: Docker) -> None:
    block, count = hashlib.sha256(b"").digest() * 32768, 1024
    argv = docker.box.argv(*docker.words("-i", *PLAIN, argv=["cat"]))
    sent, found, size = hashlib.sha256(), hashlib.sha256(), 0
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        into = process.stdin

        def write() -> None:
            for number in range(count):
                data = number.to_bytes(8, "big") + block[8:]
                sent.update(data)
                into.write(data)
            into.close()

        writer = threading.Thread(target=write)
        writer.start()
        while data := os.read(process.stdout.fileno(), 1 << 20):
            found.update(data)
            size += len(data)
        writer.join()
    assert (process.returncode, size, found.digest()) == (0, 1 << 30, sent.digest())


def test_a_terminal(docker: Docker, tmp_path: Path) -> None:
    """A shell at a terminal whose window changes; interrupted, not ended, by Ctrl-C."""
    desk = Desk(docker.box.argv(*docker.words("-ti", *PLAIN, argv=["sh"]), env=["TERM=vt100"]), cwd=tmp_path)
    try:
        desk.until(b"# ")
        desk.type(b"test -t 0 && test -t 1 && test -t 2 && echo on $((40+2))\n", b"on 42")
        desk.type(b"stty size\n", b"31 97")
        desk.resize_the_shell(17, 63)
        desk.type(b"tty; ls -l $(tty) | cut -c1\n", b"c\r\n")
        # Not `echo; sleep`: an interrupt that comes as the shell forks ends nothing.
        desk.type(b"sh -c 'echo now$((40+2)); exec sleep 1000'\n", b"now42")
        desk.type(b"\x03", b"# ")
        desk.type(b"exit 5\n", b"")
        assert desk.end() == 5
    finally:
        desk.close()


def test_exec(docker: Docker) -> None:
    """Its own environment, folder, user, input, streams, status; several at once."""
    name = docker.detached("--network=none", argv=["sleep", "1000"])
    exec_ = ("docker", "exec")
    done = docker.box.run(*exec_, "-i", name, "sh", "-c", "cat; echo err >&2; exit 9", stdin=b"in\0put")
    assert (done.status, done.out, done.err) == (9, b"in\0put", b"err\n")
    done = docker.box.run(*exec_, "-e", "A=b c", "-w", "/var", "-u", "33:29", name, "sh", "-c", "echo $A; pwd; id")
    assert done.text == "b c\n/var\nuid=33(www-data) gid=29(audio) groups=29(audio)\n"
    assert docker.box.run(*exec_, name, "absent").status in {126, 127}
    # What one has made the others see: they are in the container, not in another guest.
    docker("exec", name, "sh", "-c", "echo here >/tmp/made")
    started = [
        subprocess.Popen(
            docker.box.argv(*exec_, name, "sh", "-c", f"sleep 1; cat /tmp/made; exit {number}"), stdout=subprocess.PIPE
        )
        for number in range(6)
    ]
    assert [process.communicate()[0] for process in started] == [b"here\n"] * 6
    assert [process.returncode for process in started] == list(range(6))


def test_exec_at_a_terminal(docker: Docker, tmp_path: Path) -> None:
    name = docker.detached("--network=none", argv=["sleep", "1000"])
    desk = Desk(docker.box.argv("docker", "exec", "-ti", name, "sh"), cwd=tmp_path)
    try:
        desk.until(b"# ")
        desk.type(b"test -t 0 && stty size\n", b"31 97")
        desk.resize_the_shell(20, 80)
        desk.type(b"exit 3\n", b"")
        assert desk.end() == 3
    finally:
        desk.close()
    assert docker.inspect(name, ".State.Running") is True


def test_attach_and_detach(docker: Docker, tmp_path: Path) -> None:
    name = docker.detached("-ti", "--network=none", argv=["sh"])
    for number in range(2):
        desk = Desk(docker.box.argv("docker", "attach", name), cwd=tmp_path)
        try:
            desk.type(f"echo again$(({number}+40))\n".encode(), f"again{number + 40}".encode())
            # The keys that take the terminal away again.
            desk.type(b"\x10\x11", b"read escape sequence")
            desk.end()
        finally:
            desk.close()
    assert docker.inspect(name, ".State.Running") is True
