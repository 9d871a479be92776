# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Further processes in a container, terminals, and what a closed container refuses."""

import fcntl
import json
import os
import signal
import struct
import termios
from pathlib import Path

from tests.runtime.life.lab import Engine, Lab, wait


def test_processes_in_a_running_container(lab: Lab, tmp_path: Path) -> None:
    one = lab.script("while :; do sleep 0.1; done").started()
    done = one.exec(
        ["/bin/sh", "-c", "cat; echo err >&2; pwd; id -u; echo $X; exit 9"], input=b"in\n", env=["X=y"], cwd="/tmp"
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, b"in\n/tmp\n0\ny\n", b"err\n")
    assert b"executable file not found" in one.exec(["nosuch"]).stderr
    # Several at once, left behind as engines do; the pid is the relay's, and its end has the process's status.
    files = [tmp_path / f"pid{number}" for number in range(3)]
    for number, file in enumerate(files):
        one.left_behind(["/bin/sh", "-c", f"sleep 1; exit {number + 1}"], file)
    for number, file in enumerate(files):
        assert os.waitstatus_to_exitcode(os.waitpid(int(file.read_text()), 0)[1]) == number + 1
    # A signal to the relay is one to the process.
    script = "trap 'exit 6' TERM; echo up; while :; do sleep 0.1; done"
    with (tmp_path / "out").open("wb") as out:
        one.left_behind(["/bin/sh", "-c", script], files[0], stdout=out)
    wait(lambda: (tmp_path / "out").read_bytes() == b"up\n")
    os.kill(int(files[0].read_text()), signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(int(files[0].read_text()), 0)[1]) == 6
    # A relay that is killed takes its process with it.
    one.left_behind(["/bin/sleep", "4321"], files[0])
    os.kill(int(files[0].read_text()), signal.SIGKILL)
    os.waitpid(int(files[0].read_text()), 0)
    wait(lambda: b"4321" not in one.exec(["/bin/ps"]).stdout)
    one.kill(9)
    assert one.ended() == -9
    assert b"is stopped" in one.exec(["/bin/true"]).stderr


def test_a_terminal(lab: Lab, tmp_path: Path) -> None:
    """The engine's sizes reach the guest; output and keys go through as they are; execs have terminals, too."""
    engine = Engine(tmp_path)
    one = lab.container(["/bin/sh"], process={"terminal": True}).created("--console-socket", engine.path)
    fcntl.ioctl(engine.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    lab.says("start", one.name)
    engine.until(b"# ")
    engine.type(b"stty size; tty\r")
    engine.until(b"33 77\r\n/dev/pts/0\r\n")
    fcntl.ioctl(engine.master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
    engine.type(b"sleep 1; stty size\r")
    engine.until(b"44 99\r\n")
    (tmp_path / "e").mkdir()
    second = Engine(tmp_path / "e")
    one.left_behind(["/bin/sh"], tmp_path / "pid", "--console-socket", second.path, terminal=True)
    fcntl.ioctl(second.master, termios.TIOCSWINSZ, struct.pack("HHHH", 22, 66, 0, 0))
    second.until(b"# ")
    second.type(b"sleep 1; stty size; exit 5\r")
    second.until(b"22 66\r\n")
    assert os.waitstatus_to_exitcode(os.waitpid(int((tmp_path / "pid").read_text()), 0)[1]) == 5
    engine.type(b"exit 4\r")
    assert one.ended() == 4
    engine.close()
    second.close()


def test_a_closed_container_runs_what_its_document_names_and_nothing_else(lab: Lab) -> None:
    text = lab.config.read_text().replace('"unprotected"', '"enforce"')
    lab.config.write_text(text + 'annotations = ["exec"]\n[[exec]]\ncommand = ["/bin/echo", "healthy"]\ncount = 1\n')
    annotations = {"org.sev-artifacts.exec": json.dumps([["/bin/id", "-u"]])}
    one = lab.script("while :; do sleep 0.1; done", annotations=annotations).started()
    document = json.loads(lab.says("document", one.name))
    assert [entry["process"]["argv"] for entry in document["exec"]] == [["/bin/echo", "healthy"], ["/bin/id", "-u"]]
    assert one.exec(["/bin/echo", "healthy"]).stdout == b"healthy\n"
    assert b"no more often" in one.exec(["/bin/echo", "healthy"]).stderr
    assert one.exec(["/bin/id", "-u"]).stdout == b"0\n"
    refused: list[tuple[list[str], dict[str, object]]] = [
        (["/bin/echo", "other"], {}),
        (["/bin/id", "-u"], {"cwd": "/tmp"}),
        (["/bin/id", "-u"], {"env": ["A=b"]}),
    ]
    for argv, changes in refused:
        done = one.exec(argv, **changes)
        assert done.returncode == 1
        assert b"the workload document does not let the host start" in done.stderr
    assert any("its workload document is enforced" in line["msg"] for line in lab.logged())


def test_an_annotation_that_is_not_allowed_ends_create(lab: Lab) -> None:
    refused = {"exec": "does not allow this annotation", "none": "no annotation of ours"}
    for name, words in refused.items():
        key = f"org.sev-artifacts.{name}"
        assert lab.script("true", annotations={key: "[]"}).create().returncode == 1
        assert words in str(lab.logged()[-1]["msg"])


def test_a_lot_through_standard_streams(lab: Lab, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 8
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as stdin:
        one = lab.script("cat").started(stdin=stdin.fileno())
    assert one.ended() == 0
    assert one.stdout == data
