# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch memcheck` on processes whose memory has each form. tests/boot/test_memcheck.py has real guests."""

import dataclasses
import json
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.conftest import REPOSITORY, Answer
from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.memory import dump, process, scan
from tools.launcher.memory.check import Checked, check
from tools.launcher.memory.verdict import judge

MASKED = "yfvhnbgrewqkjhdsazxcmpoiuyt"
MARKER = MASKED[::-1].encode()
APPEND = "console=none sev_agent.workload=0123456789abcdef"
CONTROL = "what has crossed a channel"


@contextmanager
def running(kind: str, *options: str, size: int = 64) -> Iterator[int]:
    """A process of sim.py; its number."""
    program = [sys.executable, "-m", "tests.launcher.memory.sim"]
    argv = [*program, kind, MASKED, "-m", f"{size}M", "-append", APPEND, *options]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
        assert child.stdin is not None
        child.stdin.close()


def checked(kind: str, *options: str, **more: Any) -> Checked:
    with running(kind, *options) as pid:
        return check(pid, marker=MARKER, **more)


@pytest.mark.parametrize(
    ("kind", "word", "why"),
    [
        ("plain-marked", "plaintext", "the marker, which only the guest made, can be read"),
        ("plain-marked-memfd", "plaintext", "the marker, which only the guest made, can be read"),
        ("cipher", "ciphertext", r"what the host gave is there, the marker is not, and 1024 of 102. pages look random"),
        ("cipher-memfd", "ciphertext", "the marker is not, and"),
        ("shared-zeros", "not accessible", "cannot be read from this host"),
        ("shared-memfd", "not accessible", "cannot be read from this host"),
        # Something is seen, and nothing is shown.
        ("plain", "inconclusive", "the kernel's own banner can be read from this host, and the marker was not found"),
        ("zeros", "inconclusive", "neither the marker nor what the host itself gave"),
        ("random-zeros", "inconclusive", "neither the marker nor what the host itself gave"),
        ("empty", "inconclusive", "the guest has not touched its memory yet"),
        ("plain-marked-crossed", "inconclusive", "the marker lies in QEMU's own memory: it crossed a channel"),
    ],
)  # fmt: skip
def test_verdicts(kind: str, word: str, why: str) -> None:
    verdict = checked(kind).verdict
    assert (str(verdict.word), bool(re.search(why, verdict.why))) == (word, True), verdict


def test_one_marked_page_among_ciphertext_is_plaintext() -> None:
    assert str(checked("cipher-marked").verdict.word) == "plaintext"


def test_a_heap_without_its_control_shows_nothing() -> None:
    """Where not even that is found, what looks encrypted may be the wrong way of reading."""
    evidence = checked("cipher").evidence
    assert str(judge(evidence).word) == "ciphertext"
    own = dataclasses.replace(evidence.own, hits={text: [] for text in evidence.own.hits})
    verdict = judge(dataclasses.replace(evidence, own=own))
    assert (str(verdict.word), verdict.why[:35]) == ("inconclusive", "not even QEMU's own command line wa")


def test_a_control_by_name() -> None:
    """For a guest whose command line is encrypted with the rest."""
    with running("cipher", size=64) as pid:
        assert str(check(pid, marker=MARKER, controls=[APPEND[3:30].encode()]).verdict.word) == "ciphertext"
    result = checked("zeros", controls=[b"nothing that is anywhere"])
    assert str(result.verdict.word) == "inconclusive"


def test_the_translators_buffer_is_not_taken_for_the_memory() -> None:
    """It has the guest's size here and holds the marker; the verdict on the memory beside it is another."""
    result = checked("cipher")
    assert result.memory.flags == "rw-p"
    assert not result.evidence.guest.hits[MARKER]


def test_pages_are_shown() -> None:
    shown = checked("plain-marked").pages
    assert [page.what for page in shown] == [
        "QEMU's heap, its own command line", "guest's memory, what the host gave it", "guest's memory, the marker",
    ]  # fmt: skip
    assert APPEND.encode()[:16] in shown[0].data
    assert APPEND.encode() in shown[1].data
    # The page where it begins.
    assert MARKER[: len(MARKER) // 2] in shown[2].data


def test_reading_makes_no_memory() -> None:
    """A guest of which a quarter is touched must not grow by being looked at."""

    def resident(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE

    for kind in ("plain", "plain-memfd"):
        with running(kind) as pid:
            before = resident(pid)
            result = check(pid, marker=MARKER)
            assert resident(pid) - before < (1 << 20)
        assert result.evidence.guest.touched < result.memory.size // 3


def test_pages_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them: not accessible. Some: the rest counts."""
    real = os.preadv
    with running("plain-marked") as pid:
        with process.opened(pid) as there:
            memory = process.guest_memory(there, size=None)

        def preadv(refuse: range) -> Callable[[int, list[memoryview], int], int]:
            def read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
                if offset in refuse:
                    raise OSError(5, "Input/output error")
                ahead = refuse.start - offset
                size = len(buffers[0])
                return real(descriptor, [buffers[0][: ahead if 0 < ahead < size else size]], offset)

            return read

        monkeypatch.setattr("tools.launcher.memory.scan.os.preadv", preadv(range(memory.start, memory.end)))
        assert str(check(pid, marker=MARKER).verdict.word) == "not accessible"
        hole = range(memory.start + (1 << 20), memory.start + (2 << 20))
        monkeypatch.setattr("tools.launcher.memory.scan.os.preadv", preadv(hole))
        result = check(pid, marker=MARKER)
    assert str(result.verdict.word) == "plaintext"
    assert result.evidence.guest.touched - result.evidence.guest.read == len(hole)


def test_a_process_that_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("plain") as pid:
        real = scan.scan

        def after(there: process.Process, *words: Any, **more: Any) -> scan.Seen:
            os.kill(pid, 9)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return real(there, *words, **more)

        monkeypatch.setattr("tools.launcher.memory.check.scans.scan", after)
        with pytest.raises(LauncherError, match=f"process {pid}: ended while its memory was read"):
            check(pid, marker=MARKER)


def test_processes_that_are_none_of_a_guest() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        with pytest.raises(UserError, match="does not say on its command line how much memory its guest has"):
            check(child.pid, marker=MARKER)
        with pytest.raises(UserError, match="has no mappings of 64 MiB that may be a guest's memory; --memory SIZE"):
            check(child.pid, marker=MARKER, size=64 << 20)
        child.kill()
    with pytest.raises(UserError, match=f"process {child.pid}: there is none"):
        check(child.pid, marker=MARKER)
    with pytest.raises(UserError, match=r"b'short' has less than 16 bytes"):
        check(os.getpid(), marker=b"short")


def test_the_command(call: Callable[..., Answer]) -> None:
    with running("cipher") as pid:
        answer = call("memcheck", "--pid", str(pid), "--marker", MARKER.decode())
        assert (answer.status, answer.err) == (0, "")
        assert re.search(
            r"^guest's memory  process \d+, 64 MiB at 0x[0-9a-f]+ \(anonymous\), 16 MiB touched", answer.out
        )
        assert re.search(
            r"^  [0-9a-f]{12}  (?:[0-9a-f]{2} ){7}[0-9a-f]{2}  .{23}  \|.*console=none", answer.out, re.MULTILINE
        )
        assert re.search(r"^verdict         ciphertext: ", answer.out, re.MULTILINE)
        found = json.loads(call("memcheck", "--json", "--pid", str(pid), "--marker", MARKER.decode()).out)
        assert found["verdict"] == "ciphertext"
        assert len(found["shown"][0]["page"]) == 2 * 4096
    with running("plain-marked") as pid:
        assert call("memcheck", "--pid", str(pid), "--marker", MARKER.decode()).status == 1
    with running("plain") as pid:
        assert call("memcheck", "--pid", str(pid), "--marker", MARKER.decode()).status == 1
    answer = call("memcheck")
    assert answer.status == 2
    assert answer.one_line() == "sev-launch: give --pid and --marker; see sev-launch memcheck --help"
    for words in (("--pid", "x"), ("--pid", "0"), ("--memory", "12"), ("--memory", "1T")):
        assert call("memcheck", *words).status == 2


def test_hex_dumps() -> None:
    data = bytes(64) + b"0123456789abcdef" + bytes(16)
    assert list(dump.rows(data, address=0x1000)) == [
        "000000001000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
        "*",
        "000000001040  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|",
        "000000001050  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
    ]
    assert len(list(dump.rows(os.urandom(4096), address=0, around=4000, count=8))) == 8
