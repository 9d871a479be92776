# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch attest`: a launcher with the stand-in runs, and is asked at its socket."""

import json
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.channel.test_session import Start, start
from tests.launcher.conftest import Answer, Run
from tools.launcher.channel import control

Call = Callable[..., Answer]
Ask = Callable[..., Answer]
__all__ = ["start"]  # a fixture

NONCE = "00ff" * 16
OPEN = ("--accel", "tcg", "--open", "host-reports")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the socket; longer than sun_path."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return folder / "control.sock"


@pytest.fixture
def ask(call: Call, path: Path, tmp_path: Path) -> Ask:
    def attest(*more: str, nonce: str = NONCE) -> Answer:
        return call("attest", "--control", path, "--nonce", nonce, "-o", tmp_path / "report.bin", *more)

    return attest


@pytest.fixture
def running(
    command: Callable[..., list[str]], start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., "subprocess.Popen[bytes]"]:
    """A launcher whose workload is up."""

    def up(behaviour: str = "agent") -> "subprocess.Popen[bytes]":
        monkeypatch.setenv("STANDIN", behaviour)
        options = (*OPEN, "--control", str(path), "--open", "stdin")
        process = start(command("sh", "-c", "echo up; read end; exit 6", options=options, bound=True))
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    return up


def end(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    return process.wait(60)


def test_a_running_guest_is_asked(running: Callable[..., "subprocess.Popen[bytes]"], ask: Ask, tmp_path: Path) -> None:
    process = running()
    report, aux = tmp_path / "report.bin", tmp_path / "aux"
    answer = ask("--auxblob", str(aux))
    assert (answer.status, answer.out) == (0, ""), answer.err
    assert "from sev_guest" in answer.one_line()
    assert report.read_bytes() == b"report over " + bytes.fromhex(NONCE)
    assert aux.read_bytes() == b"certificates"
    # Again, with a nonce from a file; the workload was not disturbed.
    (tmp_path / "nonce").write_bytes(b"from a file")
    assert ask("--quiet", nonce=f"@{tmp_path / 'nonce'}").err == ""
    assert report.read_bytes() == b"report over from a file"
    assert end(process) == 6


def test_the_socket_is_this_users_and_goes_with_the_guest(
    running: Callable[..., "subprocess.Popen[bytes]"], ask: Ask, path: Path
) -> None:
    process = running()
    mode = path.stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_uid) == (0o600, os.geteuid())
    assert end(process) == 6
    assert not path.exists()
    answer = ask()
    assert answer.status == 2
    assert "it is the socket of `run --control`" in answer.one_line()


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    handle = os.open(path.parent, os.O_PATH)
    client.connect(f"/proc/self/fd/{handle}/{path.name}")
    os.close(handle)
    return client


def said(client: socket.socket) -> dict[str, str]:
    with client.makefile("rb") as stream:
        answer: dict[str, str] = json.loads(stream.readline())
    return answer


def test_nobody_at_the_socket_holds_up_guest_or_others(
    running: Callable[..., "subprocess.Popen[bytes]"], ask: Ask, path: Path
) -> None:
    process = running()
    dawdler, second = connected(path), connected(path)
    second.sendall(b'{"attest"')
    assert ask().status == 0
    for question in (b"{}\n", b"[]\n", b"\xff\n", b'{"attest":"0"}\n', b'{"attest":""}\n', b'{"attest":5}\n'):
        with connected(path) as client:
            client.sendall(question)
            assert "cannot be asked" in said(client)["error"]
    with connected(path) as client:
        client.sendall(json.dumps({"attest": "00" * 65}).encode() + b"\n")
        assert "65 bytes" in said(client)["error"]
    with connected(path) as client:
        client.sendall(b"x" * 5000)
        assert client.recv(1) == b""
    dawdler.close()
    second.close()
    assert ask().status == 0
    assert end(process) == 6


def test_who_answers_before_he_is_asked_is_heard(path: Path) -> None:
    """A launcher whose guest is asking for another's report, and a question that came too late to be read."""
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_PATH)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        server.listen()

        def busy() -> None:
            client, _ = server.accept()
            client.sendall(b'{"error": "another report"}\n')
            client.close()

        thread = threading.Thread(target=busy)
        thread.start()
        # More than a socket holds: without a reader it cannot be sent.
        assert control._exchange(path, b"x" * (8 << 20)) == b'{"error": "another report"}\n'
        thread.join()


def test_a_guest_without_a_report_says_why(running: Callable[..., "subprocess.Popen[bytes]"], ask: Ask) -> None:
    process = running("no-report")
    answer = ask()
    assert answer.status == 125
    assert "the guest has no report: no processor" in answer.one_line()
    assert end(process) == 6


def test_a_guest_that_never_answers(running: Callable[..., "subprocess.Popen[bytes]"], ask: Ask, path: Path) -> None:
    process = running("never-attests")
    with connected(path) as client:
        client.sendall(json.dumps({"attest": NONCE}).encode() + b"\n")
        other = ask()  # waits for its own answer, and gets it at once
        assert other.status == 125
        assert "another report is being asked for" in other.one_line() or "cannot be asked" in other.one_line()
        assert end(process) == 6
        assert client.recv(1) == b""


def test_what_the_document_does_not_open(run: Run, path: Path) -> None:
    """No socket for what would be refused; beside it, the same that is open."""
    for options, bound, what in (
        ((), True, b"the workload document does not let the host ask for reports"),
        (("--open", "reports"), True, b"the workload document does not let the host ask for reports"),
        ((), False, b"no document lets the host of an unbound guest ask"),
    ):
        done = run("true", options=("--accel", "tcg", "--control", str(path), *options), bound=bound)
        assert (done.returncode, done.stdout) == (2, b"")
        assert what in done.stderr
    assert run("true", options=(*OPEN, "--control", str(path)), bound=True).returncode == 0
    path.touch()
    done = run("true", options=(*OPEN, "--control", str(path)), bound=True)
    assert done.returncode == 2
    assert b"remove it if none runs" in done.stderr


def test_raw_reports_stand_alone(run: Run) -> None:
    for other in ("reports", "host-reports"):
        done = run("true", options=("--open", "raw-reports", "--open", other), bound=True)
        assert done.returncode == 2
        assert b"could make reports that look like the others" in done.stderr
    assert run("true", options=("--accel", "tcg", "--open", "raw-reports"), bound=True).returncode == 0


@pytest.mark.parametrize(
    ("nonce", "what"),
    [
        ("", "must have 1 to 64 bytes, has 0"),
        ("0", "must be hexadecimal digits"),
        ("00" * 65, "must have 1 to 64 bytes, has 65"),
        ("@/dev/null", "is empty"),
        ("@/dev/zero", "is longer"),
        ("@/no/such/file", "No such file"),
    ],
)
def test_nonces(ask: Ask, nonce: str, what: str) -> None:
    answer = ask(nonce=nonce)
    assert answer.status == 2
    assert what in answer.one_line()


def test_what_is_missing(call: Call) -> None:
    answer = call("attest", "--nonce", NONCE)
    assert answer.status == 2
    assert "give --control and -o" in answer.one_line()
