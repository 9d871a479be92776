# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Whole runs against the stand-in: relay, windows, signals, statuses, hostile guests, cleaning up."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launcher.conftest import REPOSITORY, Run
from tests.launcher.guest.test_rootfs import erofs_with_verity

Command = Callable[..., list[str]]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start launchers that the test talks to; whatever happens, none is left."""
    with contextlib.ExitStack() as stack:

        def call(command: list[str], **env: str) -> subprocess.Popen[bytes]:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=os.environ | env, stdin=pipe, stdout=pipe, stderr=pipe
            )
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                stack.callback(stream.close)
            stack.callback(process.wait, 60)
            stack.callback(process.kill)
            return process

        yield call


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_output_and_status(run: Run) -> None:
    done = run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.returncode == 7
    assert done.stdout == b"out\n"
    assert done.stderr.endswith(b"err\n")
    assert done.stderr.count(b"UNPROTECTED") == 1


def test_ten_megabytes_through_stdin_and_back(run: Run) -> None:
    data = random.Random(2).randbytes(10 << 20)
    done = run("cat", stdin=data)
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_both_output_streams_at_once(run: Run) -> None:
    done = run("sh", "-c", "head -c 3000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait")
    assert len(done.stdout) == 3_000_000
    assert done.stderr.count(b"\0") == 2_000_000


def test_killed_by_signal(run: Run) -> None:
    assert run("sh", "-c", "kill -9 $$").returncode == 137


def test_command_not_found(run: Run) -> None:
    done = run("/no/such/program")
    assert done.returncode == 127
    assert b"cannot run the command: not found" in done.stderr
    assert run("true").returncode == 0


def test_environment_directory_and_user(run: Run) -> None:
    options = ["--env", "A=b=c", "--env", "GIVEN", "--workdir", "/usr", "--user", "12:34", "--accel", "tcg"]
    script = 'echo "$A $GIVEN $STANDIN_UID $STANDIN_GID $HOME $PATH"; pwd'
    done = run("sh", "-c", script, options=options, GIVEN="here")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert done.stdout.decode() == f"b=c here 12 34 / {path}\n/usr\n"


def test_a_command_longer_than_one_frame(run: Run) -> None:
    long = ["x" * 100_000, "y" * 120_000, "z" * 90_000]
    done = run("sh", "-c", "printf %s,%s,%s ${#0} ${#1} ${#2}", *long)
    assert done.stdout == b"100000,120000,90000"


def test_a_command_beyond_the_protocol_is_refused(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("true", *["y" * 120_000] * 10, STANDIN_LOG=str(log))
    assert done.returncode == 2
    assert b"exceed 1048576 bytes" in done.stderr
    assert not log.exists()


def test_stalled_stdin_blocks_neither_output_nor_signals(start: Start, command: Command) -> None:
    # The agent grants nothing: 1 MiB waits in the pipe while the workload speaks and is signalled.
    process = start(
        command("sh", "-c", 'trap "echo caught; exit 3" TERM; echo up; while :; do sleep 0.05; done'),
        STANDIN="deaf",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    try:
        while True:
            os.write(process.stdin.fileno(), bytes(65536))
    except BlockingIOError:
        pass
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"caught\n"
    assert process.wait(60) == 3


def test_stalled_stdout_keeps_bounded_memory_and_loses_nothing(start: Start, command: Command) -> None:
    process = start(command("sh", "-c", "head -c 8000000 /dev/zero; echo end >&2"))
    assert process.stdout is not None
    time.sleep(1.0)  # nobody reads: the windows fill, the workload stalls
    assert process.poll() is None
    assert len(process.stdout.read()) == 8_000_000
    assert process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_signals_reach_the_workload(start: Start, command: Command, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 42' {number.name[3:]}; echo up; while :; do sleep 0.05; done"
    process = start(command("sh", "-c", script))
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert process.stdout.read() == b"got\n"
    assert process.wait(60) == 42


def test_a_reader_that_leaves_ends_the_workload_as_a_pipe_does(start: Start, command: Command) -> None:
    process = start(command("sh", "-c", "trap 'exit 9' HUP; exec yes"))
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_lost_output_is_an_error(command: Command) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command("echo", "x"), cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 125
    assert b"stdout: No space left on device" in done.stderr


def test_closed_standard_streams(command: Command) -> None:
    words = " ".join(f"'{word}'" for word in command("sh", "-c", "cat; exit 5"))
    done = subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], cwd=REPOSITORY, check=False, timeout=60)
    assert done.returncode == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("garbage", "broke the protocol"),
        ("zeros", "unknown message 0x00"),
        ("flags", "flags 0x1"),
        ("reserved", "reserved 0x7"),
        ("huge", "of 4294967295 bytes"),
        ("magic", "without its magic"),
        ("version", "speaks versions 3 to 9"),
        ("old-version", "speaks versions 1 to 1"),
        ("bound", "a workload document decides what runs, the command line says otherwise"),
        ("refused", "refused message 0x14: nope"),
        ("refused-length", "REFUSED with a wrong length"),
        ("report", "REPORT that nobody asked for"),
        ("window", "with a window of 4294967295"),
        ("short-hello", "HELLO of"),
        ("debug", "runs as debug"),
        ("two-hellos", "HELLO at the wrong time"),
        ("ready-first", "READY at the wrong time"),
        ("ready-twice", "READY at the wrong time"),
        ("start-first", "which does not exist"),
        ("other-process", "process 2, which does not exist"),
        ("output-first", "output at the wrong time"),
        ("empties", "more than 1024 outputs without a byte"),
        ("closed-window", "WINDOW for a stdin that was closed"),
        ("stdin-window", "beyond 2 GiB"),
        ("wrong-window", "another stream than stdin"),
        ("exit-code", "EXITED with code 256"),
        ("exit-signal", "EXITED with code 65"),
        ("exit-kind", "mean nothing"),
        ("exit-first", "EXITED at the wrong time"),
        ("error-length", "ERROR with a wrong length"),
        ("error-code", "ERROR with code 99"),
        ("host-message", "unknown message 0x11"),
        ("gone-early", "ended before its agent spoke"),
        ("gone-half", "the guest ended before the workload did"),
        ("gone-running", "ended before the workload did"),
        ("rootfs", "gave up (rootfs): \\x1b]0;bad\\x07 archive"),
    ],
)
def test_hostile_guest(run: Run, tmp_path: Path, name: str, words: str) -> None:
    done = run("true", STANDIN=f"raw:{name}")
    text = done.stderr.decode()
    assert done.returncode == 125, text
    assert words in text
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert done.stdout.strip(b"\0") == b""
    assert not list((tmp_path / "tmp").iterdir())


def test_output_beyond_the_window(start: Start, command: Command) -> None:
    # Nobody reads, so no more than a pipe's worth is granted again: 8 frames of 64 KiB are too many.
    process = start(command("true"), STANDIN="raw:flood")
    assert process.wait(60) == 125
    assert process.stderr is not None
    assert b"stdout beyond its window" in process.stderr.read()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("not-found", 127),
        ("not-executable", 126),
        ("bad-cwd", 126),
        ("after-end", 5),
        ("killed", 137),
        ("few-empties", 5),
        ("closed-stdin", 6),
    ],
)
def test_ends_that_the_protocol_knows(run: Run, name: str, status: int) -> None:
    assert run("true", STANDIN=f"raw:{name}").returncode == status


def test_qemu_that_dies_is_quoted_safely(run: Run) -> None:
    done = run("true", STANDIN="dies")
    assert done.returncode == 125
    assert b"QEMU ended before its agent spoke (status 1)" in done.stderr
    assert b"the stand-in refuses" in done.stderr
    assert b"\x1b" not in done.stderr


def test_guest_that_never_speaks(run: Run) -> None:
    done = run("true", options=["--accel", "tcg", "--timeout", "0.5"], STANDIN="silent")
    assert done.returncode == 125
    assert b"no word from the guest's agent within 0.5 s" in done.stderr


def test_guest_that_never_gets_ready(run: Run) -> None:
    done = run("true", options=["--accel", "tcg", "--timeout", "1"], STANDIN="never-ready")
    assert done.returncode == 125
    assert b"the workload did not start within 1 s" in done.stderr


def test_signal_while_booting_stops_at_once(start: Start, command: Command, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(command("true"), STANDIN="silent", STANDIN_LOG=str(log))
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    pid = json.loads(log.read_text())["pid"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert gone(pid)
    assert not list((tmp_path / "tmp").iterdir())


def test_three_signals_without_an_answer_end_a_dead_guest(start: Start, command: Command) -> None:
    process = start(command("sh", "-c", "trap '' INT TERM; echo up; exec sleep 1000"))
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.wait(60) == 125
    assert process.stderr is not None
    assert b"3 signals without an answer" in process.stderr.read()


def test_signals_win_over_traffic(start: Start, command: Command) -> None:
    """A guest that takes no notice of signals and never stops talking; that one which answers lives is shown below."""
    process = start(command("sh", "-c", "trap '' TERM; echo up >&2; exec yes"))
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    assert any(line == b"up\n" for line in process.stderr)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.wait(60) == 125
    assert b"3 signals without an answer" in process.stderr.read()
    reader.join()


def test_a_killed_launcher_leaves_no_qemu_and_the_next_one_cleans_up(
    start: Start, command: Command, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = start(command("sleep", "1000"), STANDIN="silent", STANDIN_LOG=str(log))
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    pid = json.loads(log.read_text())["pid"]
    assert not gone(pid)
    process.kill()
    process.wait(60)
    wait_for(lambda: gone(pid))
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    assert subprocess.run(command("true"), cwd=REPOSITORY, capture_output=True, check=False).returncode == 0
    assert not list((tmp_path / "tmp").iterdir())


def test_private_folder(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run("true", STANDIN_LOG=str(log)).returncode == 0
    entry = json.loads(log.read_text())
    assert entry["files"]["vmlinuz"] == 0o400
    assert {"vmlinuz", "initramfs.cpio.zst", "OVMF.fd", "hashes.bin", "rootfs.img"} <= set(entry["files"])
    assert not Path(entry["cwd"]).exists()


def test_container_request(run: Run, tmp_path: Path, tar: Path) -> None:
    log = tmp_path / "log"
    assert run("true", options=["--accel", "tcg", "--hostname", "box-1"], STANDIN_LOG=str(log)).returncode == 0
    container = json.loads((tmp_path / "log.container").read_text())
    assert container == {"kind": 1, "length": tar.stat().st_size, "limit": 0, "host": "box-1"}


@pytest.mark.parametrize("behaviour", ["agent", "raw:burst"])
def test_verity_that_the_agent_did_not_use_is_refused(run: Run, tmp_path: Path, behaviour: str) -> None:
    """Also when the guest says everything at once, its output included."""
    image = erofs_with_verity(tmp_path / "image")
    options = ["--accel", "tcg", "--rootfs", str(image), "--verity", "a" * 64]
    done = run("true", options=options, STANDIN=behaviour)
    assert done.returncode == 125
    assert b"without dm-verity" in done.stderr
    assert done.stdout == b""
    done = run("echo", "hi", options=options, STANDIN="verity")
    assert (done.returncode, done.stdout) == (0, b"hi\n")


def test_a_guest_that_starts_what_nobody_asked_for_is_refused(run: Run) -> None:
    done = run("true", STANDIN="raw:burst")
    assert done.returncode == 125
    assert b"process 1, which does not exist" in done.stderr
    assert done.stdout == b""
