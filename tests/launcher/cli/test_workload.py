# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""Bound guests through the launcher: the document that options make, what is refused before a start, what is sent."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.channel.test_session import Start, start
from tests.launcher.conftest import Answer, Run
from tests.launcher.guest.test_rootfs import erofs_with_verity
from tests.launcher.launcher_kit import CMDLINE, Out
from tools.launcher.options.program import EXCLUSIVE
from tools.sev.workload import reader
from tools.sev.workload.document import Document, Doors, Process, SuppliedFile, Tar, Variable, Verity

Call = Callable[..., Answer]
__all__ = ["start"]  # a fixture


def tar_root(tar: Path) -> Tar:
    return Tar(length=tar.stat().st_size, sha256=hashlib.sha256(tar.read_bytes()).hexdigest())


@pytest.fixture
def made(out: Out, call: Call, tar: Path) -> Callable[..., Document]:
    """The document that options make."""

    def make(*words: str, rootfs: Path = tar) -> Document:
        answer = call("workload", "--config", out.config, "--rootfs", rootfs, *words)
        assert answer.status == 0, answer.err
        return reader.parse(answer.out.encode(), where="stdout")

    return make


def test_the_document_of_options(made: Callable[..., Document], tar: Path) -> None:
    document = made("--", "sh", "-c", "id")
    process = document.process
    assert document.root == tar_root(tar)
    assert process.argv == ("sh", "-c", "id")
    assert process.host == Doors()
    assert (process.seccomp, process.no_new_privileges, document.reports, document.exec) == (True, True, "none", ())
    whole = made(
        "--user", "5:6", "--workdir", "/srv/", "--env", "A=b", "--hostname", "box",
        "--open", "stdin", "--open", "signals", "--open", "reports", "--", "x",
    )  # fmt: skip
    assert (whole.process.uid, whole.process.gid, whole.process.cwd, whole.hostname) == (5, 6, "/srv", "box")
    assert whole.process.environment[-1] == "A=b"
    assert (whole.process.host.stdin, whole.reports) == (True, "socket")
    assert signal.SIGTERM in whole.process.host.signals
    assert len({document.sha256, whole.sha256, made("--", "sh", "-c", "id2").sha256}) == 3


def test_a_verity_root_is_in_the_document(made: Callable[..., Document], out: Out, call: Call, tmp_path: Path) -> None:
    image = erofs_with_verity(tmp_path / "app.erofs")
    document = made("--verity", "ab" * 32, "--", "x", rootfs=image)
    assert isinstance(document.root, Verity)
    assert document.root.root_hash == "ab" * 32
    answer = call("workload", "--config", out.config, "--rootfs", image, "--", "x")
    assert answer.status == 2
    assert "bound by its dm-verity root hash" in answer.one_line()


def test_secrets_are_warned_of(out: Out, call: Call, tar: Path) -> None:
    words = ["workload", "--config", out.config, "--rootfs", tar]
    secrets = (
        "DB_PASSWORD=x",
        "my_token=x",
        "APIKEY=x",
        "DB=postgres://u:pass@host/db",
        "K=-----BEGIN PRIVATE KEY-----",
    )
    for entry in secrets:
        line = call(*words, "--env", entry, "--", "y").one_line()
        assert "the host has it" in line
        assert "can be guessed" in line
    for entry in ("LANG=x", "URL=https://host:80/a@b", "KEYBOARD=us"):
        assert call(*words, "--env", entry, "--", "y").err == ""


def test_a_word_that_is_no_text(out: Out, call: Call, tar: Path) -> None:
    answer = call("workload", "--config", out.config, "--rootfs", tar, "--", "a\udcff")
    assert answer.status == 2
    assert "what is not UTF-8" in answer.one_line()


def test_a_document_is_checked_and_explained(call: Call, tmp_path: Path, made: Callable[..., Document]) -> None:
    document = made("--open", "stdin", "--", "sh")
    path = tmp_path / "workload.json"
    path.write_bytes(document.data)
    answer = call("workload", path)
    assert answer.out.startswith(f"SHA-256 {document.sha256}\n")
    assert "\n  stdin: the host writes" in answer.out
    path.write_text(json.dumps(document.value(), indent=2))
    assert "not in canonical form" in call("workload", path).one_line()
    empty = tmp_path / "empty.json"
    empty.write_bytes(b"")
    assert call("workload", empty).one_line().endswith("empty.json: is empty")
    assert call("workload", path, "--canonical").out.encode() == document.data
    path.write_text(json.dumps(document.value() | {"more": 1}))
    assert "more: is no key" in call("workload", path, "--canonical").one_line()


def test_the_digest_stands_on_the_command_line(
    out: Out, call: Call, standin: Path, tar: Path, tmp_path: Path, made: Callable[..., Document]
) -> None:
    """The same in show and digest, from options and from the document; another document has another launch digest."""
    path = tmp_path / "workload.json"
    document = made("--", "sh")
    path.write_bytes(document.data)
    line = f"{CMDLINE} sev_agent.workload={document.sha256}"
    digests = set()
    for words in (["--workload", path], ["--workload", path, "--rootfs", tar], ["--rootfs", tar, "--", "sh"]):
        cut = words.index("--") if "--" in words else len(words)
        before, command = words[:cut], words[cut:]
        config = ["--json", "--config", out.config, *before]
        shown = json.loads(call("show", "--qemu", standin, "--cbit", "51", *config, *command).out)
        digested = json.loads(call("digest", *config, *command).out)
        assert shown["kernel_cmdline"] == digested["kernel_cmdline"] == line
        digests.add(digested["digests"][0]["digest"])
    other = json.loads(call("digest", "--json", "--config", out.config, "--rootfs", tar, "--", "sh", "-c", "x").out)
    unbound = json.loads(call("digest", "--json", "--config", out.config, "--unbound").out)
    assert len(digests) == 1
    assert len(digests | {answer["digests"][0]["digest"] for answer in (other, unbound)}) == 3
    assert unbound["kernel_cmdline"] == f"{CMDLINE} sev_agent.unbound"


@pytest.mark.parametrize("command", ["show", "digest"])
def test_nothing_is_not_an_answer(out: Out, call: Call, standin: Path, command: str) -> None:
    more = ["--qemu", standin, "--cbit", "51"] if command == "show" else []
    answer = call(command, "--config", out.config, *more)
    assert answer.status == 2
    assert "nothing says what runs" in answer.one_line()
    assert call(command, "--config", out.config, *more, "--unbound").status == 0


def test_a_run_sends_the_document_and_nothing_that_it_fixes(run: Run, tar: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run(
        "sh", "-c", "echo $A; exit 3", options=("--accel", "tcg", "--env", "A=b"), bound=True, STANDIN_LOG=str(log)
    )
    assert (done.returncode, done.stdout) == (3, b"b\n"), done.stderr
    sent = json.loads(log.with_name("log.container").read_text())
    document = reader.from_value(sent["document"], where="sent")
    assert document.process.argv == ("sh", "-c", "echo $A; exit 3")
    assert (document.root, sent["host"]) == (tar_root(tar), "")
    argv = json.loads(log.read_text())["argv"]
    assert argv[argv.index("-append") + 1] == f"{CMDLINE} sev_agent.workload={document.sha256}"


def test_stdin_is_closed_unless_it_is_opened(run: Run) -> None:
    closed = run("cat", stdin=b"input", bound=True)
    assert (closed.returncode, closed.stdout) == (0, b"")
    assert b"--open stdin opens it" in closed.stderr
    opened = run("cat", stdin=b"input", bound=True, options=("--accel", "tcg", "--open", "stdin"))
    assert (opened.returncode, opened.stdout) == (0, b"input")
    assert b"--open" not in opened.stderr


@pytest.mark.parametrize("opened", [False, True])
def test_signals_end_the_guest_unless_they_are_opened(
    command: Callable[..., list[str]], start: Start, opened: bool
) -> None:
    more = ("--open", "signals") if opened else ()
    script = "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    process = start(command("sh", "-c", script, options=("--accel", "tcg", *more), bound=True))
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert (process.wait(60), rest) == ((9, b"caught\n") if opened else (143, b""))


def test_a_reader_that_left_ends_a_guest_without_signals(command: Callable[..., list[str]], start: Start) -> None:
    process = start(command("sh", "-c", "while :; do echo y; sleep 0.05; done", bound=True))
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_what_a_document_lets_the_host_give(run: Run, out: Out, call: Call, tar: Path, tmp_path: Path) -> None:
    variable = Variable(name="LEVEL", allow="word", length=8)
    process = Process(argv=("/bin/sh", "-c", "echo $LEVEL"), host=Doors(environment=(variable,)))
    document = Document(root=tar_root(tar), process=process, files=(SuppliedFile(target="/etc/x", length=4),))
    path, content = tmp_path / "workload.json", tmp_path / "content"
    path.write_bytes(document.data)
    content.write_text("data")
    base = ("--accel", "tcg", "--workload", str(path))
    log = tmp_path / "log"

    def go(*words: str) -> subprocess.CompletedProcess[bytes]:
        done = run(options=(*base, *words), bound=True, STANDIN_LOG=str(log))
        assert b"Traceback" not in done.stderr
        return done

    done = go("--env", "LEVEL=high", "--file", f"/etc/x={content}")
    assert (done.returncode, done.stdout) == (0, b"high\n"), done.stderr
    assert json.loads(log.with_name("log.file").read_text()) == {"number": 0, "content": "data"}
    for words, said in (
        (["--env", "LEVEL=so high"], b"may only be"),
        (["--env", "LEVEL=123456789"], b"allows 8"),
        (["--env", "PATH=/evil"], b"does not let the host set it"),
        (["--hostname", "other"], b"does not let the host choose it"),
        (["--file", f"/etc/y={content}"], b"no file that the workload document lets"),
        (["--file", f"/etc/x={path}"], b"larger than the 4 bytes"),
    ):
        done = go(*words)
        assert (done.returncode, done.stdout) == (2, b""), words
        assert said in done.stderr
    path.write_bytes(dataclasses.replace(document, host_names_it=True).data)
    assert go("--hostname", "other").returncode == 0
    assert json.loads(log.with_name("log.container").read_text())["host"] == "other"


def test_another_root_is_noticed_before_the_start(run: Run, tar: Path, tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    process = Process(argv=("/bin/true",))
    options = ("--accel", "tcg", "--workload", str(path))
    path.write_bytes(Document(root=tar_root(tar), process=process).data)
    assert run(options=options, bound=True).returncode == 0
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo("more"))
    done = run(options=options, bound=True)
    assert done.returncode == 2
    assert b"the workload document's root is" in done.stderr
    path.write_bytes(Document(root=Verity(root_hash="ab" * 32, salt="", layers=(1,)), process=process).data)
    assert (
        b"an EROFS image under dm-verity, this is another; give the root that"
        in run(options=options, bound=True).stderr
    )


def test_an_agent_that_says_otherwise_is_not_believed(run: Run) -> None:
    for bound in (False, True):
        done = run("true", bound=bound, STANDIN="raw:ready-first" if bound else "raw:bound")
        assert done.returncode == 125
    assert b"broke the protocol" in done.stderr


def test_verity_must_be_confirmed(run: Run, tmp_path: Path) -> None:
    image = erofs_with_verity(tmp_path / "app.erofs")
    options = ("--accel", "tcg", "--rootfs", str(image), "--verity", "ab" * 32)
    assert run("true", bound=True, options=options).returncode == 0
    done = run("true", bound=True, options=options, STANDIN="no-verity")
    assert done.returncode == 125
    assert b"without dm-verity" in done.stderr


def test_options_that_a_document_has_already(call: Call) -> None:
    assert ("--workload", "--user") in EXCLUSIVE
    answer = call("run", "--rootfs", "x", "--workload", "y", "--user", "5")
    assert answer.status == 2
    assert "not allowed with argument --workload" in answer.one_line()


def test_a_folder_is_bound_as_the_tar_that_is_made_of_it(run: Run, call: Call, out: Out, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/x").write_text("x")
    options = ("--accel", "tcg", "--rootfs", str(root))
    assert run("true", bound=True, options=options).returncode == 0
    words = ["workload", "--config", out.config, "--rootfs", root, "--", "true"]
    first = call(*words).out
    assert call(*words).out == first
    os.utime(root / "bin/x", (5, 5))
    assert call(*words).out != first
    assert not list((tmp_path / "tmp").iterdir())
