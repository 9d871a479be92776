# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch run --tty` on a real terminal, before a stand-in for the guest."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.launcher.conftest import REPOSITORY, Answer
from tests.launcher.launcher_kit import Out
from tests.launcher.terminal_kit import Desk

Run = Callable[..., subprocess.CompletedProcess[bytes]]
WAIT = "echo up; while :; do sleep 0.05; done"


@pytest.fixture
def desk(command: Callable[..., list[str]]) -> Iterator[Callable[..., Desk]]:
    with ExitStack() as stack:

        def make(*argv: str, options: Sequence[str] = (), bound: bool = True, **environment: str) -> Desk:
            words = command(*argv, options=("--accel", "tcg", *options), bound=bound)
            made = Desk(words, cwd=REPOSITORY, environment=environment)
            stack.callback(made.close)
            return made

        yield make


def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def test_keys_go_to_the_guest_and_the_terminal_comes_back(desk: Callable[..., Desk]) -> None:
    """Ctrl-C is a byte for the guest. Without --tty it is a signal for the launcher."""
    one = desk("sh", "-c", "echo up; head -c 3 | od -An -tx1; exit 5", options=("-t", "--open", "stdin"))
    one.until(b"up")
    eventually(lambda: one.raw)
    os.write(one.user, b"\x03a\r")
    assert one.end() == 5
    one.until(b"03 61 0d")
    two = desk("sh", "-c", WAIT, options=("--open", "stdin"))
    two.until(b"up")
    assert not two.raw
    os.write(two.user, b"\x03")
    assert two.end() == 128 + signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(desk: Callable[..., Desk], number: signal.Signals) -> None:
    one = desk("sh", "-c", WAIT, options=("--tty", "--open", "stdin"))
    one.until(b"up")
    eventually(lambda: one.raw)
    one.process.send_signal(number)
    assert one.end() == 128 + number


def test_a_guest_that_dies_gives_the_terminal_back(desk: Callable[..., Desk], tmp_path: Path) -> None:
    log = tmp_path / "log"
    one = desk("sh", "-c", WAIT, options=("--tty", "--open", "stdin"), STANDIN_LOG=str(log))
    one.until(b"up")
    eventually(lambda: one.raw)
    os.kill(json.loads(log.read_text())["pid"], signal.SIGKILL)
    assert one.end() == 125


def test_the_size_is_said_where_it_is_open(desk: Callable[..., Desk], tmp_path: Path) -> None:
    for number, more in enumerate(((), ("--open", "resize"))):
        log = tmp_path / f"log{number}"
        one = desk("sh", "-c", WAIT, options=("--tty", "--open", "stdin", *more), STANDIN_LOG=str(log))
        one.until(b"up")
        eventually(lambda one=one: one.raw)  # type: ignore[misc]  # bound for each
        one.resize(50, 132)
        sizes = log.with_name(f"{log.name}.sizes")
        if more:
            eventually(lambda sizes=sizes: "50 132" in sizes.read_text())  # type: ignore[misc]  # bound for each
        one.process.send_signal(signal.SIGTERM)
        assert one.end() == 143
        said = sizes.read_text().splitlines()
        assert said == (["31 97", "31 97", "50 132"] if more else ["0 0"])


def test_what_makes_no_sense_is_refused(run: Run, out: Out, call: Callable[..., Answer], tar: Path) -> None:
    """Before a guest starts: a terminal's keys from what is none, a size of nothing."""
    done = run("cat", options=("--accel", "tcg", "--tty", "--open", "stdin"), bound=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard input is no terminal" in done.stderr
    # Nobody types: the output alone is no reason to refuse.
    assert run("echo", "x", options=("--accel", "tcg", "--tty"), bound=True).stdout == b"x\n"
    answer = call("workload", "--config", out.config, "--rootfs", tar, "--open", "resize", "--", "x")
    assert answer.status == 2
    assert "no terminal to resize" in answer.one_line()


def test_options_and_the_document(out: Out, call: Callable[..., Answer], tar: Path) -> None:
    def process(*options: str) -> dict[str, object]:
        answer = call("workload", "--config", out.config, "--rootfs", tar, *options, "--", "x")
        assert answer.status == 0, answer.err
        found: dict[str, object] = json.loads(answer.out)["process"]
        return found

    plain, more = process(), process("-t", "--open", "resize", "--cap-add", "CAP_SYSLOG", "--cap-add", "kill")
    assert (plain["terminal"], more["terminal"]) == (False, True)
    sets = [one["capabilities"] for one in (plain, more)]
    assert all(isinstance(one, dict) and one["effective"] == one["bounding"] for one in sets)
    assert sets[1]["bounding"] == sorted([*sets[0]["bounding"], "syslog"])  # type: ignore[index]  # seen above
    answer = call("workload", "--config", out.config, "--rootfs", tar, "--cap-add", "syslg", "--", "x")
    assert answer.status == 2
    assert "did you mean syslog?" in answer.one_line()
