# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The sandbox on the real tool tree: what is inside, what is not, and what a failure leaves behind."""

import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sandbox import failure, sandbox
from tools.pipeline.sandbox.sandbox import Command, Mount

Inside = Callable[..., str]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Mount, ...]:
    """/build and /out, as every step has them."""
    mounts = []
    for name in ("build", "out"):
        (tmp_path / name).mkdir()
        mounts.append(Mount(host=tmp_path / name, inside=f"/{name}", writable=True))
    return tuple(mounts)


@pytest.fixture
def inside(build_tree: Tree, folders: tuple[Mount, ...]) -> Inside:
    """inside("shell script") → what it prints."""

    def run(script: str, *more: Mount) -> str:
        command = Command(argv=("/bin/sh", "-euc", script), tree=build_tree.path, mounts=(*more, *folders))
        return sandbox.output_of(command).decode()

    return run


def test_exact_command_line(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = Command(
        argv=("make", "-j2"),
        tree=Path("/trees/t"),
        mounts=(
            Mount(host=Path("/h/src"), inside="/src"),
            Mount(host=Path("/h/b"), inside="/build", writable=True),
        ),
        environment={"JOBS": "2", "LC_ALL": "C"},
    )
    # fmt: off
    assert sandbox.bwrap_argv(command) == [
        sys.executable, "-I", "-S", "-B", "-c", sandbox._ENTER, str(repository),
        f"{tmp_path}/bwrap",
        "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent", "--new-session",
        "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", "sandbox",
        "--clearenv",
        "--ro-bind", "/trees/t", "/", "--dev", "/dev", "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys",
        "--tmpfs", "/tmp", "--tmpfs", "/inputs",
        "--setenv", "HOME", "/build",
        "--setenv", "JOBS", "2",
        "--setenv", "LC_ALL", "C",
        "--setenv", "PATH", "/usr/bin:/usr/sbin",
        "--setenv", "PYTHONDONTWRITEBYTECODE", "1",
        "--setenv", "PYTHONHASHSEED", "0",
        "--setenv", "SOURCE_DATE_EPOCH", "1735689600",
        "--setenv", "TZ", "UTC",
        "--ro-bind", "/h/src", "/src",
        "--bind", "/h/b", "/build",
        "--chdir", "/build", "--", "make", "-j2",
    ]
    # fmt: on


def test_the_environment_is_made_from_nothing(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAKEFLAGS", "CFLAGS", "LD_PRELOAD_X", "SEV_ARTIFACTS_CACHE", "LANG"):
        monkeypatch.setenv(name, "leak")
    got = dict(line.split("=", 1) for line in inside("exec env").splitlines())
    # bubblewrap sets PWD to where it starts the program.
    assert got == {**sandbox.ENVIRONMENT, "PWD": "/build"}


def test_identity(inside: Inside) -> None:
    assert inside("id -u; id -g; id -G; hostname; umask; pwd").splitlines() == [
        "1000",
        "1000",
        "1000",
        "sandbox",
        "0022",
        "/build",
    ]


def test_no_capability(inside: Inside) -> None:
    lines = inside("grep ^Cap /proc/self/status").splitlines()
    assert len(lines) == 5
    assert all(int(line.split()[1], 16) == 0 for line in lines)


def test_the_umask_is_not_the_callers(inside: Inside, tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        inside("touch /out/f; mkdir /out/d")
    finally:
        os.umask(previous)
    assert oct((tmp_path / "out/f").stat().st_mode) == "0o100644"
    assert oct((tmp_path / "out/d").stat().st_mode) == "0o40755"


def test_standard_input_is_empty(inside: Inside) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"typed by somebody")
    os.close(writer)
    with os.fdopen(reader) as stdin:
        saved = os.dup(0)
        os.dup2(stdin.fileno(), 0)
        try:
            assert inside("wc -c").strip() == "0"
        finally:
            os.dup2(saved, 0)
            os.close(saved)


def test_nothing_of_the_host_is_visible(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    assert inside(f"cat {tmp_path}/secret 2>&1 || echo gone").endswith("No such file or directory\ngone\n")
    assert inside("find /tmp /inputs /home /root /mnt -mindepth 1 2>/dev/null || true") == ""
    # Only what was mounted is in the mount table, and only the two result folders can be written.
    table = [line.split() for line in inside("cat /proc/self/mounts").splitlines()]
    disks = {fields[1]: fields[3].split(",")[0] for fields in table if fields[2] not in {"tmpfs", "proc", "devpts"}}
    devices = {point for point in disks if point.startswith("/dev/")}
    assert devices <= {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    assert {point: mode for point, mode in disks.items() if point not in devices} == {
        "/": "ro",
        "/build": "rw",
        "/out": "rw",
    }


def test_no_other_process_is_visible(inside: Inside) -> None:
    assert int(inside("ls /proc | grep -c '^[0-9]*$'")) <= 5
    assert len([path for path in Path("/proc").iterdir() if path.name.isdigit()]) > 5


@pytest.mark.parametrize("path", ["/f", "/usr/bin/f", "/etc/f", "/src/f", "/inputs/in"])
def test_read_only(inside: Inside, tmp_path: Path, path: str) -> None:
    (tmp_path / "in").write_text("input")
    (tmp_path / "s").mkdir()
    more = (Mount(host=tmp_path / "in", inside="/inputs/in"), Mount(host=tmp_path / "s", inside="/src"))
    with pytest.raises(BuildError, match="Read-only file system"):
        inside(f"echo x >{path}", *more)
    assert inside("cat /inputs/in; echo x >/build/f; cat /build/f", *more) == "inputx\n"


CONNECT = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).recv(9))"


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on the host's loopback that greets whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = os.fork()
        if process == 0:
            while True:
                listener.accept()[0].sendall(b"hello")
        yield listener.getsockname()[1]
        os.kill(process, 9)
        os.waitpid(process, 0)


def test_no_network(inside: Inside, server: int) -> None:
    outside = subprocess.run([sys.executable, "-c", CONNECT, str(server)], capture_output=True, text=True, check=True)
    assert outside.stdout == "b'hello'\n"
    with pytest.raises(BuildError, match=r"refused|unreachable"):
        inside(f'python3 -c "{CONNECT}" {server}')
    assert inside("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '") == "lo\n"


def test_abstract_sockets_of_the_host_are_out_of_reach(inside: Inside) -> None:
    name = f"sev-artifacts-test-{os.getpid()}"
    code = f"import socket; socket.socket(socket.AF_UNIX).connect(chr(0) + '{name}'); print('in')"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "in\n"
        with pytest.raises(BuildError, match="refused"):
            inside(f'python3 -c "{code}"')


def test_output_has_a_limit(build_tree: Tree, folders: tuple[Mount, ...]) -> None:
    command = Command(argv=("printf", "12345"), tree=build_tree.path, mounts=folders)
    assert sandbox.output_of(command, limit=5) == b"12345"
    with pytest.raises(BuildError, match="wrote 5 bytes, more than 4"):
        sandbox.output_of(command, limit=4)


FAILING = 'echo "run in $(pwd) with $WORD"; test ! -e /build/.hidden; touch /build/.hidden; seq 100; exit 7'


def test_a_failure_shows_tail_log_and_replay(
    build_tree: Tree, folders: tuple[Mount, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", shown)
    log, replay = tmp_path / "log dir/it's.log", tmp_path / "replay dir/it's.sh"
    command = Command(
        argv=("/bin/sh", "-euc", FAILING),
        tree=build_tree.path,
        mounts=folders,
        environment={"WORD": "it's $HOME"},
    )
    outcome = sandbox.run(command, title="compiling", log=log, replay=replay)
    assert outcome == sandbox.Outcome(status=7, log=log, replay=replay)
    with pytest.raises(BuildError) as info:
        failure.check(outcome, title="compiling")
    assert str(info.value) == (f"compiling: the step ended with status 7; whole log: {log}; run it again: sh {replay}")
    tail = [line for line in shown.getvalue().splitlines() if "|" in line]
    assert [line.strip() for line in tail] == [f"| {n}" for n in range(81, 101)]
    expected = "run in /build with it's $HOME\n" + "".join(f"{n}\n" for n in range(1, 101))
    assert log.read_text() == expected
    # The script does the same again, hidden leftovers notwithstanding, from anywhere and for any environment.
    done = subprocess.run(
        ["/bin/sh", replay],
        cwd="/",
        env={"PATH": os.environ["PATH"], "WORD": "other"},
        input="typed",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, expected)


def test_the_replay_script_opens_a_shell(build_tree: Tree, folders: tuple[Mount, ...], tmp_path: Path) -> None:
    command = Command(argv=("false",), tree=build_tree.path, mounts=folders, environment={"WORD": "w"})
    assert sandbox.run(command, title="t", log=tmp_path / "l", replay=tmp_path / "r").status == 1
    (tmp_path / "build/kept").write_text("left by the step")
    done = subprocess.run(
        ["/bin/sh", tmp_path / "r", "--shell"],
        env={"PATH": os.environ["PATH"], "TERM": "vt100", "LEAK": "1"},
        input="echo $WORD $TERM $LEAK; id -u; cat /build/kept",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "w vt100\n1000\nleft by the step"


def test_a_shifted_clock_is_for_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEV_ARTIFACTS_CLOCK", raising=False)
    sandbox.check_clock(tmp_path)
    monkeypatch.setenv("SEV_ARTIFACTS_CLOCK", "/somebody/s/library.so +210d")
    with pytest.raises(UserError, match=r"SEV_ARTIFACTS_CLOCK: is for the reproducibility check alone.*; unset it"):
        sandbox.check_clock(tmp_path)
    (tmp_path / sandbox.CLOCK_MARK).touch()
    sandbox.check_clock(tmp_path)


def test_available_needs_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.available()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"bubblewrap \(bwrap\) is not installed; apt-get install"):
        sandbox.available()
