# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Attestation reports in a booted guest, up to the missing processor: who may ask, and what they hear.

With a processor's stand-in the rest is tested natively (initramfs/agent/src/tests/reports.rs).
"""

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.conftest import Boot, bind
from tools.attack.guests import agent as guest_kit
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import failure, sandbox
from tools.sev.workload.document import Document, Doors, Exec, Process, Tar

NO_PROCESSOR = "no SEV-SNP processor is behind this guest's report interface"


@pytest.fixture(scope="module")
def client(build_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program of ask.c."""
    folder = tmp_path_factory.mktemp("ask")
    build = folder / "build"
    build.mkdir()
    command = sandbox.Command(
        argv=("gcc", "-static", "-Wall", "-Werror", "-o", "/build/ask", "/inputs/ask.c"),
        tree=build_tree.path,
        mounts=(
            sandbox.Mount(host=Path(__file__).with_name("ask.c"), inside="/inputs/ask.c"),
            sandbox.Mount(host=build, inside="/build", writable=True),
        ),
    )
    outcome = sandbox.run(command, title="ask.c", log=folder / "log", replay=folder / "replay.sh")
    failure.check(outcome, title="ask.c")
    return (build / "ask").read_bytes()


@pytest.fixture(scope="module")
def disk(busybox: Path, client: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_kit.root_tar(busybox, tmp_path_factory.mktemp("root") / "root.tar", ask=client)


@pytest.fixture
def document(disk: Path) -> Callable[..., Document]:
    """Of a workload that runs this script as a user without any rights."""
    data = disk.read_bytes()
    root = Tar(length=len(data), sha256=hashlib.sha256(data).hexdigest())

    def make(script: str, *, reports: str, host: bool, doors: Doors | None = None) -> Document:
        process = Process(
            argv=("sh", "-c", script), environment=("PATH=/bin",), uid=1000, gid=1000, host=doors or Doors()
        )
        return Document(root=root, process=process, reports=reports, host_reports=host)

    return make


def refusal(guest: guest_kit.Guest) -> str:
    """Of the ATTEST that was just sent."""
    payload = guest.expect(guest_kit.REFUSED)
    assert payload[:4] == bytes([guest_kit.ATTEST, 0, 0, 0])
    return payload[8:].decode()


def reason(guest: guest_kit.Guest) -> str:
    """The same, where the host may ask: why there is no report."""
    payload = guest.expect(guest_kit.REPORT)
    assert payload[:4] == bytes([1, 0, 0, 0])
    (length,) = struct.unpack_from("<I", payload, 4)
    assert payload[8 + length :] == bytes(8)
    return payload[8 : 8 + length].decode()


def test_the_workload_asks_at_the_socket(boot: Boot, document: Callable[..., Document]) -> None:
    """Two at a time, without rights; a third says nothing and holds up nobody; garbage; no other interface."""
    script = (
        "ask > /tmp/silent & silent=$!; while ! grep -q connected /tmp/silent; do sleep 0.1; done; "
        "ask 00ff > /tmp/1 & first=$!; ask aa > /tmp/2; wait $first; cat /tmp/1 /tmp/2; ask xyz; ask ''; "
        "ask 00 & first=$!; ask 11 & wait $first $!; ls /sys/kernel/config >&2; ls -l /dev/sev-reports >&2; "
        "touch /sys/kernel/config/x; kill $silent"
    )
    wanted = document(script, reports="socket", host=False)
    with boot(binding=bind(wanted)) as guest:
        guest.bound(wanted.data).expect(guest_kit.READY)
        # The host may not ask here.
        guest.send(guest_kit.ATTEST, payload=b"x")
        assert "does not let the host ask for reports" in refusal(guest)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
        answers = [json.loads(line)["error"] for line in result.out.splitlines()]
        assert len(answers) == 6, result
        for number in (0, 1, 4, 5):
            assert answers[number].startswith(NO_PROCESSOR), answers
        for number in (2, 3):
            assert "hexadecimal digits" in answers[number]
        assert b"srw-rw-rw-" in result.err
        assert b"report" not in result.err.replace(b"/dev/sev-reports", b"")


@pytest.mark.parametrize("reports", ["none", "raw"])
def test_without_the_opening_there_is_no_socket(boot: Boot, document: Callable[..., Document], reports: str) -> None:
    wanted = document("ask 00; echo $?; ls /sys/kernel/config", reports=reports, host=False)
    with boot(binding=bind(wanted)) as guest:
        guest.bound(wanted.data).expect(guest_kit.READY)
        guest.send(guest_kit.ATTEST, payload=b"x")
        assert "does not let the host" in refusal(guest)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        result = guest.collect([1])[1]
        assert result.out.splitlines() == [b"2", *([b"tsm"] if reports == "raw" else [])]
        assert b"/dev/sev-reports: No such file or directory" in result.err


def test_the_host_asks_where_it_may(boot: Boot, document: Callable[..., Document]) -> None:
    """Before the workload, while it runs, and again; the workload's own socket and the streams go on."""
    wanted = document("read x; ask 01; echo $x", reports="socket", host=True, doors=Doors(stdin=True))
    wanted = dataclasses.replace(wanted, exec=(Exec(name="again", count=1, process=wanted.process),))
    with boot(binding=bind(wanted)) as guest:
        guest.bound(wanted.data).expect(guest_kit.READY)
        for nonce in (b"x", bytes(64)):
            guest.send(guest_kit.ATTEST, payload=nonce)
            assert reason(guest).startswith(NO_PROCESSOR)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry(flags=0))
        guest.expect(guest_kit.STARTED)
        guest.send(guest_kit.ATTEST, payload=b"y")
        assert reason(guest).startswith(NO_PROCESSOR)
        guest.send(guest_kit.STDIN, 1, b"end\n")
        out = guest.collect([1])[1].out.splitlines()
        assert json.loads(out[0])["error"].startswith(NO_PROCESSOR)
        assert out[1:] == [b"end"]


def test_only_the_host_and_no_socket(boot: Boot, document: Callable[..., Document]) -> None:
    wanted = document("ask 00; echo $?", reports="none", host=True)
    with boot(binding=bind(wanted)) as guest:
        guest.bound(wanted.data).expect(guest_kit.READY)
        guest.send(guest_kit.ATTEST, payload=b"x")
        assert reason(guest).startswith(NO_PROCESSOR)
        guest.send(guest_kit.RUN, 1, guest_kit.run_entry())
        assert guest.collect([1])[1].out == b"2\n"


@pytest.mark.parametrize("nonces", [[b""], [bytes(65)], [b"a"] * 20])
def test_questions_that_break_the_protocol(boot: Boot, document: Callable[..., Document], nonces: list[bytes]) -> None:
    """No bytes, too many, and more questions than answers: nothing piles up."""
    wanted = document("sleep 1000", reports="none", host=True)
    with boot(binding=bind(wanted)) as guest:
        guest.bound(wanted.data).expect(guest_kit.READY)
        guest.raw(b"".join(struct.pack("<BBHII", guest_kit.ATTEST, 0, 0, 0, len(one)) + one for one in nonces))
        words = guest.last_words()
        assert words is not None
        assert words[0] == 1
        assert "ATTEST" in words[1]


def test_the_host_of_an_unbound_guest_is_told(boot: Boot) -> None:
    with boot() as guest:
        guest.ready()
        guest.send(guest_kit.ATTEST, payload=b"x")
        assert "unbound guest" in refusal(guest)
        assert guest.run(1, b"ask", b"00").exited == (0, 0, 0, 2)
        assert guest.run(2, b"ls", b"/sys/kernel/config").out == b"tsm\n"
